// SPDX-License-Identifier: Apache-2.0
// Opening a LUKS volume: from a header and a passphrase, or the volume key itself, to what the view
// of its payload needs (luks/view.h).
//
//   Unlock with;
//   with.passphrase = passphrase.bytes();
//   LuksVolume volume = co_await unlock(world, HeaderWindow(access), with);
//
// Each derivation takes as long as the header's maker wanted, up to minutes: it runs on the
// blocking pool, one after the other, at most one a key slot.
#pragma once

#include <optional>
#include <string>

#include "async/task.h"
#include "crypto/secret.h"
#include "luks/header.h"

namespace ringdisk::luks {

// How a volume is opened. The bytes stay the caller's until the task is done.
struct Unlock {
  Bytes passphrase;
  // Not empty: the key itself; no slot is looked at.
  Bytes volume_key;
  std::optional<uint32_t> slot;  // this one alone
  KdfLimits limits;
  // A damaged or older copy of the header is written anew first, unless something else lies there.
  // Only for a storage that was opened for writing.
  bool repairs_header = false;
};

struct LuksVolume {
  uint32_t version = 0;
  std::string uuid;
  CipherSpec cipher;
  SecretBytes key;
  ByteCount payload_offset;               // in the payload's storage
  std::optional<ByteCount> payload_size;  // nullopt: to the end
  uint32_t sector_size = 512;
  uint64_t iv_offset = 0;  // added to the number of each 512 bytes, which begins at 0
  bool allow_discards = false;
  int key_slot = -1;  // that opened; -1: the volume key was given
};

// kDenied: no key slot opens with this passphrase, or it is not this volume's key; one message
// whichever slot it was. kNotFound: there is no such slot. kLimit: a key slot that would have to be
// tried costs more than `with.limits`, and no other one opens; kUnsupported: likewise for one that
// needs what is not there; kCancelled where `with.limits.stop` says so. Besides what read_header()
// and supported_facts() refuse.
Task<LuksVolume> unlock(const World& world, HeaderWindow window, Unlock with);

// As above, of a header that was read before.
Task<LuksVolume> unlock(const World& world, HeaderWindow window, const VolumeFacts& facts,
                        Unlock with);

// The payload's size in a storage of `storage_size` bytes. kCorrupt: the storage ends before the
// payload does, or within a sector; or header and payload would share their bytes (`is_detached`
// says that the header is in another storage).
Result<ByteCount> payload_size(const World& world, uint32_t node, const LuksVolume& volume,
                               ByteCount storage_size, bool is_detached);

}  // namespace ringdisk::luks
