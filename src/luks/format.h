// SPDX-License-Identifier: Apache-2.0
// Making a LUKS volume: a new header with one key slot. What is not asked for is as cryptsetup
// makes it: LUKS2, aes-xts-plain64 with a 512-bit key, argon2id, two copies of 16 KiB, encrypted
// data from 16 MiB on.
//
// What can be refused is, and keys are derived, before anything is written. Then whatever header
// there was is made unrecognisable, durably; then comes the key slot's material, then the header.
// So after a crash there is the old header, none, or one that the new passphrase opens.
#pragma once

#include "luks/kdf_cost.h"
#include "luks/volume.h"

namespace ringdisk::luks {

struct FormatRequest {
  uint32_t version = 2;
  CipherSpec cipher;
  size_t key_bytes = 64;
  // Of key slots and digests; of PBKDF2 where that is the kdf, unless `kdf.hash` was set by itself.
  Hash hash = Hash::kSha256;
  KdfChoice kdf;
  std::string uuid;              // empty: a new one
  std::string label, subsystem;  // LUKS2
  uint32_t sector_size = 512;    // LUKS2
  // nullopt: behind the header, at the usual place; at 0 where the header is detached.
  std::optional<ByteCount> payload_offset;
  bool is_detached = false;
  uint64_t luks2_header_bytes = kLuks2HeaderBytesMin;  // of each copy
  std::optional<uint64_t> luks2_slot_area_bytes;       // nullopt: what there is room for
  uint32_t slot = 0;
  Bytes passphrase;
  Bytes volume_key;  // empty: a random one
};

// Where things of a new volume come to lie.
struct FormatPlaces {
  ByteCount payload_offset;  // 0: detached
  ByteCount header_end;      // a header's storage has at least so many bytes
  uint64_t slot_area_bytes = 0;
};

// What is wrong with the request, by name, before anything is written; where things will lie (for
// `measure`).
Result<FormatPlaces> plan_format(const FormatRequest& request, const Refusal& refusal);

// Writes the header; durable in the end. Gives the volume, open. kNoSpace where the window is too
// small for the header; a storage that can grow does. What else is in the storage is not touched.
Task<LuksVolume> format_luks(const World& world, HeaderWindow window, FormatRequest request);

// A random (version 4) UUID as text.
Result<std::string> make_uuid();
inline constexpr const char* kExampleUuid = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
// Eight, four, four, four, twelve hexadecimal digits.
bool is_uuid(std::string_view text);

}  // namespace ringdisk::luks
