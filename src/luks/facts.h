// SPDX-License-Identifier: Apache-2.0
// VolumeFacts: what a header of either version says of the volume behind it, in one form, so that
// opening and key slots are written once. A value, made by facts_of() of a header.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "luks/key_slot.h"

namespace ringdisk::luks {

// A key slot that is in use, but not by this program, and why.
struct UnusableSlot {
  uint32_t number = 0;
  std::string why;
  bool is_of_volume = false;  // else it holds some other key, which no passphrase opens this with
};

struct VolumeFacts {
  uint32_t version = 0;
  std::string uuid;
  CipherSpec cipher;
  ByteCount payload_offset;  // in the payload's storage; 0 where the header is detached
  std::optional<ByteCount> payload_size;  // nullopt: to the end
  uint32_t sector_size = 512;
  uint64_t iv_offset = 0;  // added to the number of each 512 bytes
  bool allow_discards = false;
  VolumeDigest digest;
  std::vector<KeySlot> slots;  // in use, by number
  std::vector<UnusableSlot> unusable_slots;
  uint32_t slots_max = 0;

  const KeySlot* find_slot(uint32_t number) const {
    for (const KeySlot& slot : slots) {
      if (slot.number == number) return &slot;
    }
    return nullptr;
  }
};

}  // namespace ringdisk::luks
