// SPDX-License-Identifier: Apache-2.0
// The header of LUKS1 (LUKS On-Disk Format Specification 1.2.3, section 2), big-endian:
//
//      0 "LUKS" ba be      72 hash name [32]              168 UUID [40]
//      6 version (1)      104 payload offset, sectors     208 8 key slots of 48 bytes:
//      8 cipher [32]      108 key bytes                        0 state          4 iterations
//     40 mode [32]        112 digest [20]                      8 salt [32]     40 material sector
//                         132 salt [32], 164 iterations       44 stripes
//
// 592 bytes: the last two key slots lie, wholly or in part, in the second sector. Pure.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "luks/facts.h"

namespace ringdisk::luks {

inline constexpr std::string_view kMagic = "LUKS\xba\xbe";
inline constexpr size_t kLuks1HeaderBytes = 592;
inline constexpr uint32_t kLuks1Slots = 8;
inline constexpr uint64_t kLuks1AreasBegin = 4096;
inline constexpr size_t kLuks1SaltBytes = 32, kLuks1DigestBytes = 20;
inline constexpr size_t kUuidFieldBytes = 40;

struct Luks1Slot {
  bool is_active = false;
  // What stands there that means neither "in use" nor "free": damage, which is kept as it is, and
  // costs this slot alone.
  std::optional<uint32_t> odd_state;
  uint32_t iterations = 0;
  std::array<std::byte, kLuks1SaltBytes> salt = {};
  uint32_t material_sector = 0;
};

struct Luks1Header {
  CipherSpec cipher;
  Hash hash = Hash::kSha256;
  uint32_t payload_sector = 0;
  uint32_t key_bytes = 0;
  std::array<std::byte, kLuks1DigestBytes> digest = {};
  std::array<std::byte, kLuks1SaltBytes> digest_salt = {};
  uint32_t digest_iterations = 0;
  std::string uuid;
  std::array<Luks1Slot, kLuks1Slots> slots;
};

// `bytes` begin where the header does; more than kLuks1HeaderBytes are not looked at. All fields
// are within limits, key slots lie behind the header, before the payload and not in one another.
// Key slots that are damaged in themselves are no refusal: the others may open.
// kInvalid: it is no LUKS1 header. kUnsupported: a hash that is not known.
Result<Luks1Header> parse_luks1_header(Bytes bytes, const Refusal& refusal);

std::array<std::byte, kLuks1HeaderBytes> encode_luks1_header(const Luks1Header& header);

VolumeFacts facts_of(const Luks1Header& header);

// Where key slots and payload of a new header lie: slots at multiples of 4096 bytes from 4096 on.
uint32_t luks1_material_sector(uint32_t slot, uint32_t key_bytes);
// The first byte behind all key slots.
ByteCount luks1_header_end(uint32_t key_bytes);

}  // namespace ringdisk::luks
