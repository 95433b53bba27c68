// SPDX-License-Identifier: Apache-2.0
// What block status tells about: the metadata contexts of an export, and those that a connection
// has selected. base:allocation is always there; each bitmap that the export shows is
// qemu:dirty-bitmap:NAME, whose state says whether a range was changed (kStateDirty).
//
//   id 1: base:allocation     id 2, 3, …: the export's bitmaps, in order
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "block/dirty_bits.h"

namespace ringdisk::nbd {

inline constexpr uint32_t kAllocationContextId = 1;
inline constexpr uint32_t kFirstBitmapContextId = 2;

// One connection selects no more: each is a chunk of every reply to a block status request.
inline constexpr uint32_t kStatusContextsMax = 8;

// A bitmap as an export shows it. That of an image which is being written to changes under it.
struct ExportBitmap {
  std::string name;
  std::shared_ptr<const DirtyBits> bits;
};

struct StatusContext {
  uint32_t id = 0;
  const DirtyBits* bits = nullptr;  // null: base:allocation
};

// Constant once a session begins; the export keeps the bits.
struct StatusContexts {
  std::array<StatusContext, kStatusContextsMax> selected;
  uint32_t count = 0;

  bool has_allocation() const {
    for (uint32_t i = 0; i < count; ++i) {
      if (!selected[i].bits) return true;
    }
    return false;
  }
};

}  // namespace ringdisk::nbd
