// SPDX-License-Identifier: Apache-2.0
// What a file system is told of a new image's file, while that is still empty; QEMU's words. They
// are wishes: a file system that does not know of such things makes a file all the same.
#pragma once

#include <cstdint>

#include "base/blocking.h"
#include "block/options.h"

namespace ringdisk::file {

struct FileHints {
  bool no_copy_on_write = false;  // nocow=: of btrfs, for which a disk's writes are a burden
  uint32_t extent_bytes = 0;      // extent_size_hint=: of XFS; 0: none
};

// Takes them.
Result<FileHints> take_file_hints(Options& options, Diagnostics& diagnostics);

void give_file_hints(Blocking token, int descriptor, const FileHints& hints);

}  // namespace ringdisk::file
