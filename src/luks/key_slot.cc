// SPDX-License-Identifier: Apache-2.0
// From passphrase to volume key and back. Everything that is computed on the way lies in
// SecretBytes.
#include "luks/key_slot.h"

#include "crypto/anti_forensic.h"
#include "crypto/cpu_features.h"
#include "crypto/kdf.h"
#include "crypto/sector_cipher.h"

namespace ringdisk::luks {
namespace {

// OpenSSL's AES is fast enough for a quarter of a megabyte.
Result<std::unique_ptr<SectorCipher>> material_cipher(const KeySlot& slot, Bytes area_key) {
  return make_sector_cipher(slot.area_cipher, area_key, kMaterialSectorBytes, CpuFeatures());
}

Result<SecretBytes> area_key_of(const KeySlot& slot, Bytes passphrase) {
  ASSIGN_OR_RETURN(SecretBytes area_key, SecretBytes::make(slot.area_key_bytes));
  RETURN_IF_ERROR(derive_key(slot.kdf, passphrase, area_key.bytes()));
  return area_key;
}

// The end of a refusal: the option that sets the limit.
std::string more_by(std::string_view option) {
  return "; " + std::string(option) + " sets the limit";
}

}  // namespace

std::string_view name_of(KdfKind kind) {
  constexpr std::string_view kNames[] = {"pbkdf2", "argon2i", "argon2id"};
  return kNames[static_cast<size_t>(kind)];
}

std::optional<KdfKind> find_kdf(std::string_view name) {
  for (KdfKind kind : {KdfKind::kPbkdf2, KdfKind::kArgon2i, KdfKind::kArgon2id}) {
    if (name_of(kind) == name) return kind;
  }
  return std::nullopt;
}

Result<void> check_kdf_limits(const KdfParameters& kdf, const KdfLimits& limits,
                              const Refusal& refusal, std::string_view whose) {
  const std::string subject(whose);
  if (kdf.kind == KdfKind::kPbkdf2) {
    if (kdf.iterations <= limits.pbkdf2_iterations_max) return {};
    return refusal.limit(subject + " asks for " + std::to_string(kdf.iterations) +
                         " iterations of PBKDF2; at most " +
                         std::to_string(limits.pbkdf2_iterations_max) + " are allowed" +
                         more_by(kKdfIterationsMax));
  }
  if (kdf.memory_kib > limits.argon2_memory_kib_max) {
    return refusal.limit(subject + " asks for " + std::to_string(kdf.memory_kib) +
                         " KiB of memory for Argon2; at most " +
                         std::to_string(limits.argon2_memory_kib_max) + " KiB are allowed" +
                         more_by(kKdfMemoryMax));
  }
  if (uint64_t{kdf.memory_kib} * kdf.iterations > limits.argon2_work_kib_max) {
    return refusal.limit(subject + " asks for " + std::to_string(kdf.iterations) +
                         " passes of Argon2 over " + std::to_string(kdf.memory_kib) +
                         " KiB; at most " + std::to_string(limits.argon2_work_kib_max) +
                         " KiB in all passes are allowed" + more_by(kKdfWorkMax));
  }
  return {};
}

Result<void> derive_key(const KdfParameters& kdf, Bytes passphrase, MutableBytes target) {
  if (kdf.kind == KdfKind::kPbkdf2) {
    return pbkdf2(kdf.hash, passphrase, kdf.salt, kdf.iterations, target);
  }
  const Argon2Kind kind = kdf.kind == KdfKind::kArgon2i ? Argon2Kind::kI : Argon2Kind::kId;
  const Argon2Cost cost{kdf.iterations, kdf.memory_kib, kdf.lanes};
  return argon2(kind, passphrase, kdf.salt, cost, target);
}

Result<SecretBytes> open_material(const KeySlot& slot, Bytes passphrase, MutableBytes material) {
  CHECK_EQ(material.size(), material_bytes(slot.key_bytes));
  ASSIGN_OR_RETURN(SecretBytes area_key, area_key_of(slot, passphrase));
  ASSIGN_OR_RETURN(const std::unique_ptr<SectorCipher> cipher,
                   material_cipher(slot, area_key.bytes()));
  RETURN_IF_ERROR(cipher->decrypt(0, material, material));
  ASSIGN_OR_RETURN(SecretBytes key, SecretBytes::make(slot.key_bytes));
  RETURN_IF_ERROR(
      af_merge(slot.af_hash, material.first(slot.key_bytes * kStripes), kStripes, key.bytes()));
  return key;
}

Result<SecretBytes> seal_material(const KeySlot& slot, Bytes passphrase, Bytes key) {
  CHECK_EQ(key.size(), slot.key_bytes);
  ASSIGN_OR_RETURN(SecretBytes area_key, area_key_of(slot, passphrase));
  ASSIGN_OR_RETURN(const std::unique_ptr<SectorCipher> cipher,
                   material_cipher(slot, area_key.bytes()));
  ASSIGN_OR_RETURN(SecretBytes material, SecretBytes::make(material_bytes(slot.key_bytes)));
  RETURN_IF_ERROR(
      af_split(slot.af_hash, key, kStripes, material.bytes().first(slot.key_bytes * kStripes)));
  RETURN_IF_ERROR(cipher->encrypt(0, material.bytes(), material.bytes()));
  return material;
}

Result<void> compute(VolumeDigest& digest, Bytes key) {
  return derive_key(digest.kdf, key, digest.digest);
}

Result<bool> matches(const VolumeDigest& digest, Bytes key) {
  VolumeDigest computed = digest;
  RETURN_IF_ERROR(compute(computed, key));
  return equal_in_constant_time(computed.digest, digest.digest);
}

}  // namespace ringdisk::luks
