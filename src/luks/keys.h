// SPDX-License-Identifier: Apache-2.0
// Adding, changing and removing the key slots of a volume, its header open for writing and used by
// nobody else. At no moment, whenever the power fails, is there a state in which none of the
// passphrases opens that opened before or after: what is new is durable before what is old goes
// (luks/header.h has the order on disk).
//
// All of them read the header first, repair it where a copy is damaged, and log that.
#pragma once

#include "luks/kdf_cost.h"
#include "luks/volume.h"

namespace ringdisk::luks {

struct NewKey {
  Bytes passphrase;
  std::optional<uint32_t> slot;  // nullopt: the first free one
  bool may_replace = false;      // `slot` may be in use: what opened it does so no more
  KdfChoice kdf;                 // the hash of LUKS1 is the header's
};

// Adds a key slot; `with` opens the volume. Gives its number. kBusy: the slot is in use, and is not
// to be replaced. kNoSpace: all are, or there is no room for its material; to replace one of LUKS1
// needs another that is free meanwhile.
Task<uint32_t> add_key(const World& world, HeaderWindow window, Unlock with, NewKey key);

// The passphrase `with` opens one slot (or with.slot), which from then on `key` opens instead,
// under the same number; gives that. Needs room for one slot more while it happens: kNoSpace
// without. key.slot and key.may_replace are not looked at.
Task<uint32_t> change_key(const World& world, HeaderWindow window, Unlock with, NewKey key);

// Removes the slot that `with` opens; gives its number. kDenied: it is the last one, and not
// `may_be_last`.
Task<uint32_t> remove_key(const World& world, HeaderWindow window, Unlock with, bool may_be_last);

// Removes slot `slot`. With a `proof`, only when that opens another slot, so that nobody locks
// himself out. kNotFound: it is not in use. kDenied as above.
Task<void> kill_slot(const World& world, HeaderWindow window, uint32_t slot,
                     std::optional<Unlock> proof, bool may_be_last);

// Removes all key slots, and overwrites all key material: nobody reads the disk any more, but with
// a backup of the header. Gives how many there were. After a crash those that are named open
// still, and doing it again finishes what was left.
Task<uint32_t> erase_keys(const World& world, HeaderWindow window);

}  // namespace ringdisk::luks
