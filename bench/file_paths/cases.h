// SPDX-License-Identifier: Apache-2.0
//
// What file_paths measures: which operation, on a file in which state, how large, how deep.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ways.h"

namespace ringdisk::bench {

// The state of the file when a cell begins.
enum class Start {
  kCached,     // written, all of it in the page cache
  kCold,       // written, on the device, nothing in the page cache
  kHoles,      // full size, nothing allocated
  kUnwritten,  // full size, allocated by fallocate, never written
  kEmpty,      // size 0: every write extends
};

struct Case {
  std::string name;
  Verb verb = Verb::kRead;
  Start start = Start::kCached;
  uint32_t size = 4096;
  uint32_t depth = 1;
  bool direct = false;
  bool sequential = false;   // else every block once, in a scattered order
  bool dirty = false;        // a 4 KiB write in place before each operation (for kDataSync)
  bool sync_beside = false;  // another thread calls fdatasync in a loop
  uint32_t shards = 1;       // threads, each with its own way
  std::vector<std::string> ways;
};

enum class Kind {
  kMemory,  // tmpfs and the like: no cold cache, no O_DIRECT of its own
  kDisk,    // a file system on a device
  kDevice,  // a block device: no holes, no end to move
};

// All cases for a kind; `brief` keeps one size and the ways that tell file systems apart.
std::vector<Case> make_cases(Kind kind, bool brief);

}  // namespace ringdisk::bench
