// SPDX-License-Identifier: Apache-2.0
// Sectors in memory of several pieces. A piece that holds whole sectors is enciphered where it
// lies, many sectors a call; a sector that two pieces share goes through a copy. Pure; nothing
// allocated.
//
//   pieces   [ 512 512 512 1|11 512 512 ]     the sector across the cut is gathered and put back
#pragma once

#include <cstdint>

#include "base/io_buffers.h"
#include "base/result.h"
#include "crypto/sector_cipher.h"

namespace ringdisk::luks {

// `target` holds whole sectors from the one numbered `first` (in units of 512 bytes) on.
Result<void> decrypt_in_place(const SectorCipher& cipher, uint64_t first, MutableBuffers target);

// `source`, whole sectors, is left as it is; source.size() == target.size().
Result<void> encrypt_into(const SectorCipher& cipher, uint64_t first, ConstBuffers source,
                          MutableBytes target);

}  // namespace ringdisk::luks
