// SPDX-License-Identifier: Apache-2.0
// WindowNode: a stretch of another storage, as a storage: driver=raw where a file is meant. So an
// image is found within something larger, a partition or a member of a tar archive:
//
//   driver=qcow2,file.driver=raw,file.offset=1M,file.size=20G,file.file.filename=all.img
//
//   the file:    |<── offset ──>|<───────── size ─────────>|  what lies here is not touched
//   the window:                 0                         size
//
// Without a size it goes to the file's end, grows with the file, and cuts it; with one it stays as
// large as it is. It owns what it is a stretch of, and closes it with itself. Any number of shards.
//
// Cost: a frame for each request. A raw disk with an offset has none of it (nodes/raw.h adds a
// constant); commands that look at its file, or change how large it is, see it through a window.
#pragma once

#include <memory>
#include <optional>

#include "block/graph.h"
#include "block/storage_access.h"

namespace ringdisk {

class Diagnostics;

// What of a storage is meant.
struct Window {
  ByteCount offset;
  std::optional<ByteCount> size;  // nullopt: up to the end, wherever that is
};

// Takes `offset` and `size`; they may be absent.
Result<Window> take_window(Options& options, Diagnostics& diagnostics);
// Whether `storage` has all of it.
Result<void> check_window(const Window& window, const StorageNode& storage,
                          Diagnostics& diagnostics);

class WindowNode final : public StorageNode {
 public:
  // `window` lies within `child`.
  WindowNode(std::unique_ptr<SharedStorage> child, Window window);

  const char* driver() const override { return "raw"; }
  const StorageLimits& limits() const override { return limits_; }
  ByteCount size() const override;
  // Of all of the storage.
  Task<ByteCount> allocated_size() override { return child_->node->allocated_size(); }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override;
  Task<void> close() override { return child_->node->close(); }

 private:
  // constant after open
  const std::unique_ptr<SharedStorage> child_;
  const Window window_;
  const StorageLimits limits_;
};

// Opens what it is a stretch of with one of `below`. Options: offset, size, file.*.
StorageDriver window_driver(Drivers below);

}  // namespace ringdisk
