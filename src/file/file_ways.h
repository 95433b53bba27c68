// SPDX-License-Identifier: Apache-2.0
// Which way bytes take to a file: docs/decisions/0004-how-bytes-reach-a-file.md as a function.
// Pure.
#pragma once

#include <cstddef>
#include <cstdint>

#include "file/file_facts.h"

namespace ringdisk::file {

enum class FileWay : uint8_t {
  kInPlace,  // a plain system call on the shard
  kProbe,    // in place with RWF_NOWAIT; what it cannot do at once goes on by the way for misses
  kRing,     // the loop
  kWorker,   // the loop, and a thread of the kernel's from the start (may_block)
};

// No call in place moves more than a piece, and after kInPlaceTurnBytes the loop has a turn: 128
// KiB hold it for 6 to 45 us.
inline constexpr size_t kInPlacePieceBytes = size_t{128} << 10;
inline constexpr size_t kInPlaceTurnBytes = size_t{256} << 10;
// The loop copies cached data in one go, too, so a buffered request is cut for it as well: 50 us.
inline constexpr size_t kBufferedRingPieceBytes = size_t{1} << 20;
// Allocating and punching in memory, above which it goes to a worker: 100 us.
inline constexpr uint64_t kInPlaceAllocateBytes = uint64_t{256} << 10;

inline FileWay read_way(const FileFacts& facts, bool direct) {
  switch (facts.kind) {
    case FileKind::kMemory:
      return FileWay::kInPlace;
    case FileKind::kOpaque:
      return FileWay::kWorker;
    case FileKind::kLocal:
    case FileKind::kDevice:
      return direct ? FileWay::kRing : FileWay::kProbe;
  }
  UNREACHABLE("there are four kinds");
}

// What a write is, beyond the file it goes to.
struct WriteSituation {
  bool durable = false;        // it is to be on the device when it completes
  bool inside = true;          // it ends within the file
  bool knows_nowait = false;   // the file system has done a write with RWF_NOWAIT
  bool flush_running = false;  // of this node
};

inline FileWay write_way(const FileFacts& facts, bool direct, WriteSituation situation) {
  if (facts.kind == FileKind::kMemory) return FileWay::kInPlace;
  if (facts.kind == FileKind::kOpaque) {
    const bool in_place = facts.overlayfs && !direct && !situation.durable;
    return in_place ? FileWay::kInPlace : FileWay::kWorker;
  }
  if (direct) {
    return facts.direct_writes_parallel && situation.inside ? FileWay::kRing : FileWay::kWorker;
  }
  if (situation.durable) return FileWay::kWorker;
  if (facts.kind == FileKind::kDevice && situation.flush_running) return FileWay::kWorker;
  return situation.knows_nowait ? FileWay::kProbe : FileWay::kInPlace;
}

// fallocate in all its modes.
inline FileWay allocate_way(const FileFacts& facts, uint64_t length) {
  const bool small = length <= kInPlaceAllocateBytes;
  return facts.kind == FileKind::kMemory && small ? FileWay::kInPlace : FileWay::kWorker;
}

}  // namespace ringdisk::file
