// SPDX-License-Identifier: Apache-2.0
// Measuring what a derivation costs here. A measurement begins small and grows until it takes long
// enough to be believed; the rest is arithmetic. Worked example, Argon2: 4 passes over 64 MiB took
// 200 ms, so 2 s are worth 2560 MiB in all passes: 4 passes over 640 MiB.
#include "luks/kdf_cost.h"

#include <unistd.h>

#include <algorithm>

#include "crypto/kdf.h"
#include "crypto/random_bytes.h"

namespace ringdisk::luks {
namespace {

constexpr Duration kBelievable = std::chrono::milliseconds(50);
constexpr uint64_t kTargetMsMax = 60 * 60 * 1000;

// Nanoseconds of one derivation with `kdf`; at least 1.
Result<uint64_t> time_derivation(const Clock& clock, const KdfParameters& kdf, size_t key_bytes) {
  ASSIGN_OR_RETURN(SecretBytes key, SecretBytes::make(key_bytes));
  const Instant begin = clock.now();
  RETURN_IF_ERROR(derive_key(kdf, as_bytes("foo bar baz"), key.bytes()));
  return std::max<uint64_t>(1, static_cast<uint64_t>((clock.now() - begin).count()));
}

uint64_t target_nanoseconds(const KdfChoice& choice) {
  return std::clamp<uint64_t>(choice.milliseconds, 1, kTargetMsMax) * 1'000'000;
}

Result<void> measure_pbkdf2(const Clock& clock, const KdfChoice& choice, size_t key_bytes,
                            KdfParameters& kdf) {
  constexpr uint32_t kStart = 10'000, kEnd = 640'000;
  uint64_t taken = 1;
  for (kdf.iterations = kStart;; kdf.iterations *= 4) {
    ASSIGN_OR_RETURN(taken, time_derivation(clock, kdf, key_bytes));
    if (taken >= static_cast<uint64_t>(kBelievable.count()) || kdf.iterations >= kEnd) break;
  }
  const double wanted = static_cast<double>(kdf.iterations) / static_cast<double>(taken) *
                        static_cast<double>(target_nanoseconds(choice));
  kdf.iterations =
      static_cast<uint32_t>(std::clamp<double>(wanted, kPbkdf2IterationsMin, kPbkdf2IterationsMax));
  return {};
}

// Half of the machine's memory, so that the machine it is opened on has a chance.
uint32_t memory_kib_max(const KdfChoice& choice) {
  if (choice.memory_kib) return *choice.memory_kib;
  const uint64_t pages = static_cast<uint64_t>(std::max(sysconf(_SC_PHYS_PAGES), 0L));
  const uint64_t page_kib = static_cast<uint64_t>(std::max(sysconf(_SC_PAGESIZE), 4096L)) / 1024;
  return static_cast<uint32_t>(
      std::clamp<uint64_t>(pages / 2 * page_kib, 64 << 10, kArgon2MemoryKibDefaultMax));
}

uint32_t lanes_of(const KdfChoice& choice) {
  if (choice.lanes) return *choice.lanes;
  const auto cores = static_cast<uint32_t>(std::max(sysconf(_SC_NPROCESSORS_ONLN), 1L));
  return std::min(cores, kArgon2LanesDefaultMax);
}

Result<void> measure_argon2(const Clock& clock, const KdfChoice& choice, size_t key_bytes,
                            KdfParameters& kdf) {
  const uint32_t least = std::max(kArgon2MemoryKibMin, 8 * kdf.lanes);
  const uint32_t most = std::max(memory_kib_max(choice), least);
  kdf.iterations = kArgon2PassesMin;
  kdf.memory_kib = std::clamp<uint32_t>(16 << 10, least, most);
  uint64_t taken = 1;
  while (true) {
    ASSIGN_OR_RETURN(taken, time_derivation(clock, kdf, key_bytes));
    const bool is_enough = taken >= static_cast<uint64_t>(kBelievable.count());
    if (is_enough || kdf.memory_kib > most / 4) break;
    kdf.memory_kib *= 4;
  }
  const double work = static_cast<double>(kdf.memory_kib) * kdf.iterations /
                      static_cast<double>(taken) * static_cast<double>(target_nanoseconds(choice));
  const double memory = std::clamp<double>(work / kArgon2PassesMin, least, most);
  kdf.memory_kib = static_cast<uint32_t>(memory);
  constexpr double kPassesMax = 1 << 16;
  kdf.iterations = static_cast<uint32_t>(
      std::clamp<double>(work / kdf.memory_kib, kArgon2PassesMin, kPassesMax));
  return {};
}

Result<void> check_pbkdf2(const KdfChoice& choice, const Refusal& refusal) {
  const uint32_t iterations = choice.iterations.value_or(kPbkdf2IterationsMin);
  if (iterations >= kPbkdf2IterationsMin && iterations <= kPbkdf2IterationsMax) return {};
  return refusal.invalid("PBKDF2 has " + std::to_string(kPbkdf2IterationsMin) + " to " +
                         std::to_string(kPbkdf2IterationsMax) + " iterations");
}

Result<void> check_argon2(const KdfChoice& choice, const Refusal& refusal) {
  const uint32_t lanes = lanes_of(choice);
  if (lanes == 0 || lanes > kArgon2LanesDefaultMax) {
    return refusal.invalid("Argon2 runs on 1 to " + std::to_string(kArgon2LanesDefaultMax) +
                           " threads");
  }
  const uint32_t least = std::max(kArgon2MemoryKibMin, 8 * lanes);
  const uint32_t most = KdfLimits().argon2_memory_kib_max;
  const uint32_t asked = choice.memory_kib.value_or(least);
  if (asked < least || asked > most) {
    return refusal.invalid("Argon2 takes " + std::to_string(least) + " to " + std::to_string(most) +
                           " KiB of memory");
  }
  if (choice.iterations.value_or(kArgon2PassesMin) >= kArgon2PassesMin) return {};
  return refusal.invalid("Argon2 has at least " + std::to_string(kArgon2PassesMin) + " iterations");
}

}  // namespace

Result<void> check_kdf_choice(const KdfChoice& choice, KdfKind otherwise, const Refusal& refusal) {
  const bool is_pbkdf2 = choice.kind.value_or(otherwise) == KdfKind::kPbkdf2;
  return is_pbkdf2 ? check_pbkdf2(choice, refusal) : check_argon2(choice, refusal);
}

Result<KdfParameters> choose_kdf(const Clock& clock, const KdfChoice& choice, KdfKind otherwise,
                                 size_t key_bytes, const Refusal& refusal) {
  RETURN_IF_ERROR(check_kdf_choice(choice, otherwise, refusal));
  KdfParameters kdf;
  kdf.kind = choice.kind.value_or(otherwise);
  kdf.hash = choice.hash;
  kdf.salt.resize(kSaltBytes);
  RETURN_IF_ERROR(fill_with_secret_random(kdf.salt));
  const bool is_argon2 = kdf.kind != KdfKind::kPbkdf2;
  if (is_argon2) kdf.lanes = lanes_of(choice);
  if (choice.iterations) {
    kdf.iterations = *choice.iterations;
    if (is_argon2) kdf.memory_kib = memory_kib_max(choice);
  } else if (is_argon2) {
    RETURN_IF_ERROR(measure_argon2(clock, choice, key_bytes, kdf));
  } else {
    RETURN_IF_ERROR(measure_pbkdf2(clock, choice, key_bytes, kdf));
  }
  return kdf;
}

}  // namespace ringdisk::luks
