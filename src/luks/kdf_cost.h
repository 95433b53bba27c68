// SPDX-License-Identifier: Apache-2.0
// How much a new key slot is to cost whoever guesses passphrases: a time that a derivation takes on
// this machine, which is measured, or numbers that the caller names. Slow: on the blocking pool.
#pragma once

#include <optional>

#include "async/cancel.h"
#include "luks/key_slot.h"
#include "runtime/clock.h"

namespace ringdisk::luks {

// What the user asks for. Without an iteration count a derivation takes about `milliseconds`.
struct KdfChoice {
  std::optional<KdfKind> kind;  // nullopt: the version's default
  Hash hash = Hash::kSha256;    // of PBKDF2
  uint32_t milliseconds = 2000;
  std::optional<uint32_t> iterations;  // of PBKDF2, or passes of Argon2
  std::optional<uint32_t>
      memory_kib;                 // of Argon2: at most so much; with `iterations`, just so much
  std::optional<uint32_t> lanes;  // of Argon2
  CancelToken stop = {};          // as of KdfLimits
};

inline constexpr uint32_t kPbkdf2IterationsMin = 1000;  // as cryptsetup
inline constexpr uint32_t kArgon2PassesMin = 4;
inline constexpr uint32_t kArgon2MemoryKibMin = 32;
inline constexpr uint32_t kArgon2MemoryKibDefaultMax = 1 << 20;
inline constexpr uint32_t kArgon2LanesDefaultMax = 4;
inline constexpr size_t kSaltBytes = 32;

// kInvalid: numbers that no derivation has, named. Costs nothing. `otherwise` where none is chosen.
Result<void> check_kdf_choice(const KdfChoice& choice, KdfKind otherwise, const Refusal& refusal);

// Parameters with a new salt for a key of `key_bytes`; errors as of check_kdf_choice().
Result<KdfParameters> choose_kdf(const Clock& clock, const KdfChoice& choice, KdfKind otherwise,
                                 size_t key_bytes, const Refusal& refusal);

}  // namespace ringdisk::luks
