// SPDX-License-Identifier: Apache-2.0
// Opening a file and finding out what it is: everything that may block and happens once. Runs in
// the blocking pool; what it gives is constant afterwards.
//
// The kind decides how bytes reach the file (file/file_ways.h,
// docs/decisions/0004-how-bytes-reach-a-file.md).
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/blocking.h"
#include "base/result.h"
#include "base/units.h"
#include "block/options.h"
#include "runtime/file_descriptor.h"

namespace ringdisk {
class Diagnostics;
}

namespace ringdisk::file {

enum class FileKind : uint8_t {
  kDevice,  // a block device
  kMemory,  // tmpfs, ramfs, memfd: nothing there waits for a device
  kLocal,   // a file system that says at once what it would have to wait for (ext4, XFS, btrfs)
  kOpaque,  // one that does not (overlayfs, network file systems, FUSE)
};

// How the user wants it.
struct FileRequest {
  std::string filename;
  bool read_only = false;
  CacheMode cache = CacheMode::kWriteback;
};

inline bool is_direct(CacheMode cache) {
  return cache == CacheMode::kNone || cache == CacheMode::kDirectsync;
}
inline bool is_write_durable(CacheMode cache) {
  return cache == CacheMode::kWritethrough || cache == CacheMode::kDirectsync;
}

struct FileFacts {
  FileKind kind = FileKind::kOpaque;
  uint64_t size = 0;
  uint32_t block_size = 1;        // of offsets and lengths
  uint32_t memory_alignment = 1;  // of memory, with O_DIRECT
  bool overlayfs = false;
  bool direct_writes_parallel =
      false;            // O_DIRECT writes inside the file do not wait for each other
  bool unmaps = false;  // a hole can be made, as far as one can tell without trying
};

struct OpenedFile {
  FileDescriptor descriptor;
  FileFacts facts;
};

// Opens an existing regular file or block device. Errors carry `node` and, where the errno does not
// say what to do, a sentence.
Result<OpenedFile> open_file(Blocking token, const FileRequest& request, uint32_t node,
                             Diagnostics& diagnostics);

}  // namespace ringdisk::file
