// SPDX-License-Identifier: Apache-2.0
// What a header says of a volume besides its keys, changed in place: label, subsystem, UUID, in
// which order key slots are tried. No passphrase is needed, as with cryptsetup: nothing of it
// decides who can read the disk.
#pragma once

#include <optional>
#include <string>

#include "luks/header_window.h"

namespace ringdisk::luks {

struct HeaderConfig {
  std::optional<std::string> label, subsystem;  // LUKS2; "": none
  std::optional<std::string> uuid;
  std::optional<uint32_t> slot_priority;  // LUKS2, KeySlot::priority of `slot`
  uint32_t slot = 0;

  bool is_empty() const { return !label && !subsystem && !uuid && !slot_priority; }
};

// One update of the header, as keys.h makes them: after a crash it says what it said before, or
// all of the new. Repairs a damaged copy first. kInvalid, kUnsupported (LUKS1), kNotFound (the
// slot), before anything is written.
Task<void> change_config(const World& world, HeaderWindow window, HeaderConfig config);

}  // namespace ringdisk::luks
