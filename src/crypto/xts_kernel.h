// SPDX-License-Identifier: Apache-2.0
// The hot loop of disk encryption: AES-XTS (IEEE 1619) over many sectors in one call, in three
// widths. One function has both directions and both key sizes; all give the same bytes.
//
//   tweak of sector s:   T(s, 0) = AES(tweak key, number of s)          many sectors side by side
//   tweak of block j:    T(s, j) = T(s, 0) * x^j  in GF(2^128)          a lane each, no chain
//   block j:             C = AES(data key, P ^ T) ^ T                   512 bytes in flight
//
// What it buys: OpenSSL's interface sets up one sector after the other, which at 512 bytes takes
// longer than the cipher itself (docs/decisions/0017). Constant time: AES instructions, shifts and
// carry-less products only; no address and no branch depends on a secret. Each file holds functions
// for its own instructions alone (target attributes), so none may be called but on a machine that
// has them (crypto/cpu_features.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

namespace ringdisk {

inline constexpr uint32_t kAesRoundsMax = 14;
inline constexpr size_t kAesBlockBytes = 16;
// One direction's round keys of one AES key.
inline constexpr size_t kAesScheduleBytes = (kAesRoundsMax + 1) * kAesBlockBytes;

// Round keys in memory that somebody else owns (locked, wiped): kAesScheduleBytes each.
struct XtsRoundKeys {
  const std::byte* encrypt = nullptr;  // of the data key
  const std::byte* decrypt = nullptr;  // of the data key, for AES-NI's inverse cipher
  const std::byte* tweak = nullptr;    // of the tweak key
  uint32_t rounds = 0;                 // 10 or 14
};

struct XtsWork {
  uint64_t first = 0;                 // the number of the first sector's first 512 bytes
  uint64_t number_mask = 0;           // ~0: plain64; 2^32 - 1: plain
  uint32_t sector_size = 0;           // 512, 1024, 2048 or 4096
  size_t bytes = 0;                   // a multiple of sector_size
  const std::byte* source = nullptr;  // any alignment
  std::byte* target = nullptr;        // the same as source, or apart from it
};

// Makes the round keys of a 16- or 32-byte key; `encrypt` and `decrypt` hold kAesScheduleBytes.
// Needs AES-NI.
void expand_aes_key(Bytes key, MutableBytes encrypt, MutableBytes decrypt);

using XtsFunction = void (*)(const XtsRoundKeys& keys, const XtsWork& work, bool encrypts);
void xts_aesni(const XtsRoundKeys& keys, const XtsWork& work, bool encrypts);
void xts_vaes256(const XtsRoundKeys& keys, const XtsWork& work, bool encrypts);
void xts_vaes512(const XtsRoundKeys& keys, const XtsWork& work, bool encrypts);

}  // namespace ringdisk
