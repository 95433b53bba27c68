// SPDX-License-Identifier: Apache-2.0
// Giving a disk another size. What lies beyond a smaller end is given up first, by the same
// requests a guest would discard it with, then the size changes. What a larger disk gains is made
// to read as zeros first, also where a backing image or the rest of the old last cluster would show
// through, and then the size changes: at no moment does anybody see what he must not.
//
//   shrink   check ─> zero beyond the end ─> size
//   grow     check ─> room in the tables ─> zero beyond the old end, which nobody sees, and take
//            space for it ─> size
//
// Each step opens the image and closes it. One that fails, or a crash, leaves the disk as large as
// it was. (A raw disk is its file: it grows first, takes space then, and is cut back where there is
// none.)
#pragma once

#include <functional>
#include <memory>

#include "block/format_admin.h"
#include "block/graph.h"
#include "jobs/preallocate.h"

namespace ringdisk {

// How the steps open the image, for writing. Both may be called again after what they opened was
// closed.
struct ResizedImage {
  struct File {
    FormatAdmin* admin = nullptr;
    std::unique_ptr<SharedStorage> storage;
  };
  std::function<Task<File>()> open_file;                         // the image alone
  std::function<Task<std::shared_ptr<DeviceNode>>()> open_disk;  // with its backing chain
};

// On the calling shard. `old_size` is that of the disk now; `how` is for what it gains. Nothing
// else may have the image open. Errors: those of FormatAdmin::check_new_size and
// check_preallocation, before anything is changed; of the storage.
Task<void> resize_disk(Graph& graph, const ResizedImage& image, ByteCount old_size, ByteCount size,
                       Preallocation how = Preallocation::kOff);

}  // namespace ringdisk
