// SPDX-License-Identifier: Apache-2.0
// A key slot that is being made: its parameters, and the material that goes to its area. Shared by
// format and by what changes key slots.
#pragma once

#include "luks/header_window.h"
#include "luks/kdf_cost.h"

namespace ringdisk::luks {

struct NewSlot {
  KeySlot slot;          // whole, but for its area where the caller finds that later
  SecretBytes material;  // enciphered
};

// Derives and seals on the blocking pool. `shape` gives number, ciphers, hash and sizes; its kdf is
// chosen here. kCancelled where `choice.stop` says so.
Task<NewSlot> make_slot(const World& world, HeaderWindow window, KeySlot shape, KdfChoice choice,
                        KdfKind otherwise, Bytes passphrase, Bytes key);

// The digest of `key` with a new salt, costing about a sixteenth of `slot_kdf` where that is
// PBKDF2. On the blocking pool.
Task<VolumeDigest> make_digest(const World& world, HeaderWindow window, Hash hash,
                               size_t digest_bytes, KdfParameters slot_kdf, Bytes key);

// Writes the material to slot.area, durably.
Task<void> write_material(const World& world, HeaderWindow window, const NewSlot& made);

// Overwrites an area that no header names any more, with random bytes and durably.
Task<void> wipe_area(const World& world, HeaderWindow window, HostRange area);

// Likewise what of `range` was ever written to: holes stay holes.
Task<void> wipe_written(const World& world, HeaderWindow window, HostRange range);

}  // namespace ringdisk::luks
