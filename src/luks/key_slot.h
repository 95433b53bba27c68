// SPDX-License-Identifier: Apache-2.0
// A key slot, whichever version of LUKS records it: how a passphrase becomes the key of its area,
// how the area is enciphered, and how the volume key lies in it.
//
//   passphrase --kdf, salt--> area key --area cipher--> split volume key --merge--> volume key
//
// All functions here are pure and slow: they run on the blocking pool, after check_kdf_limits().
#pragma once

#include <cstdint>
#include <vector>

#include "base/units.h"
#include "crypto/cipher_spec.h"
#include "crypto/digest.h"
#include "crypto/secret.h"
#include "luks/kdf_limits.h"
#include "luks/refusal.h"

namespace ringdisk::luks {

inline constexpr uint32_t kStripes = 4000;   // in every header there is
inline constexpr size_t kKeyBytesMax = 128;  // of a volume; the largest in use has 64
inline constexpr uint32_t kMaterialSectorBytes = 512;

enum class KdfKind : uint8_t { kPbkdf2, kArgon2i, kArgon2id };
std::string_view name_of(KdfKind kind);
std::optional<KdfKind> find_kdf(std::string_view name);

struct KdfParameters {
  KdfKind kind = KdfKind::kPbkdf2;
  Hash hash = Hash::kSha256;  // kPbkdf2
  uint32_t iterations = 0;    // kPbkdf2; else passes over the memory
  uint32_t memory_kib = 0;    // Argon2
  uint32_t lanes = 0;         // Argon2
  std::vector<std::byte> salt;
};

// kLimit, by name and option, where a derivation costs more. `whose`: "key slot 3", "the digest".
Result<void> check_kdf_limits(const KdfParameters& kdf, const KdfLimits& limits,
                              const Refusal& refusal, std::string_view whose);

Result<void> derive_key(const KdfParameters& kdf, Bytes passphrase, MutableBytes target);

inline constexpr uint32_t kUsualPriority = 1;

struct KeySlot {
  uint32_t number = 0;
  // LUKS2: 0 is left out unless it is asked for, 2 is tried first.
  uint32_t priority = kUsualPriority;
  KdfParameters kdf;
  CipherSpec area_cipher;
  size_t area_key_bytes = 0;
  Hash af_hash = Hash::kSha256;
  size_t key_bytes = 0;  // of the volume
  HostOffset area;       // from the header's start
  ByteCount area_size;   // at least material_bytes()
};

// Bytes that the slot's material takes: all stripes, in whole sectors.
inline size_t material_bytes(size_t key_bytes) {
  return (key_bytes * kStripes + kMaterialSectorBytes - 1) / kMaterialSectorBytes *
         kMaterialSectorBytes;
}

// The volume key that `material`, as it lies in the area, gives under `passphrase`; whether it is
// the right one only the digest tells. `material` is used up.
Result<SecretBytes> open_material(const KeySlot& slot, Bytes passphrase, MutableBytes material);

// The material that holds `key` under `passphrase`; of material_bytes().
Result<SecretBytes> seal_material(const KeySlot& slot, Bytes passphrase, Bytes key);

// Tells a right volume key from a wrong one.
struct VolumeDigest {
  uint32_t number = 0;
  KdfParameters kdf;  // PBKDF2
  std::vector<std::byte> digest;
};
inline constexpr size_t kDigestBytesMin = 16, kVolumeDigestBytesMax = 64;

// In constant time, but for the derivation.
Result<bool> matches(const VolumeDigest& digest, Bytes key);
// Fills digest.digest, which has its size, for `key`.
Result<void> compute(VolumeDigest& digest, Bytes key);

}  // namespace ringdisk::luks
