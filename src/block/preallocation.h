// SPDX-License-Identifier: Apache-2.0
// Taking space before it is written to: how much of it, and what a storage does for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "block/storage_access.h"

namespace ringdisk {

enum class Preallocation : uint8_t {
  kOff,
  kMetadata,  // clusters have their place, the file is a hole there
  kFalloc,    // the file's space is reserved, without writing it
  kFull,      // zeros are written
};

// From off, metadata, falloc, full.
std::optional<Preallocation> parse_preallocation(std::string_view text);

// Of `range`, which reads as zeros where kFalloc is asked for; kOff and kMetadata do nothing. Not
// flushed. Errors of the storage (kNoSpace …): what was taken until then stays taken.
Task<void> take_space(StorageAccess& storage, HostRange range, Preallocation how);

}  // namespace ringdisk
