// SPDX-License-Identifier: Apache-2.0
// Keys from passphrases: PBKDF2 (RFC 8018) by OpenSSL, Argon2i and Argon2id (RFC 9106, version 1.3)
// by libargon2. Both are slow on purpose: never call them on a shard, but on the blocking pool, and
// bound what a header asks for first. Pure; any thread.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "crypto/digest.h"

namespace ringdisk {

// Fills `target` from `password` and `salt`. `iterations` is at least 1, at most
// kPbkdf2IterationsMax. kUnsupported: this OpenSSL has no such hash.
Result<void> pbkdf2(Hash hash, Bytes password, Bytes salt, uint32_t iterations,
                    MutableBytes target);
inline constexpr uint32_t kPbkdf2IterationsMax = 0x7fffffff;  // OpenSSL counts in an int

enum class Argon2Kind : uint8_t { kI, kId };

struct Argon2Cost {
  uint32_t passes = 0;
  uint32_t memory_kib = 0;  // at least 8 a lane
  uint32_t lanes = 0;       // each may use a thread
};
inline constexpr uint32_t kArgon2LanesMax = 64;
inline constexpr size_t kArgon2SaltBytesMin = 8;

// Fills `target` (4 bytes at least) from `password` and `salt` (kArgon2SaltBytesMin at least). Its
// memory is left out of core dumps and wiped. kInvalid: the cost is none that Argon2 has. kNoSpace:
// there is not so much memory.
Result<void> argon2(Argon2Kind kind, Bytes password, Bytes salt, Argon2Cost cost,
                    MutableBytes target);

}  // namespace ringdisk
