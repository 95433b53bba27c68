// SPDX-License-Identifier: Apache-2.0
// The binary front of a LUKS2 header (LUKS2 On-Disk Format Specification 1.1, section 2.1), which
// is there twice: at 0, and at `header_bytes`, where the second copy begins. Big-endian:
//
//      0 "LUKS" ba be, second copy "SKUL" ba be     104 salt [64]       448 checksum [64]
//      6 version (2)      24 label [48]             168 UUID [40]       512 … 4095 zeros
//      8 header bytes     72 checksum name [32]     208 subsystem [48]  4096 JSON, zeros to the end
//     16 sequence number                            256 own offset
//
// The checksum covers all header bytes, itself taken as zeros. Of two right copies the one with the
// higher sequence number is newer. Pure.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "luks/refusal.h"

namespace ringdisk::luks {

inline constexpr size_t kLuks2BinaryBytes = 4096;
inline constexpr uint64_t kLuks2HeaderBytesMin = 16 << 10, kLuks2HeaderBytesMax = 4 << 20;
inline constexpr size_t kLabelBytesMax = 47;

// Whether the bytes begin as a copy of a header of any version does.
bool has_luks_magic(Bytes front);

// Sizes a copy may have: powers of two from the smallest to the largest.
bool is_luks2_header_size(uint64_t bytes);

enum class Luks2Copy : uint8_t { kFirst, kSecond };

struct Luks2Binary {
  uint64_t header_bytes = kLuks2HeaderBytesMin;
  uint64_t sequence = 0;
  std::string label, subsystem, uuid;
  std::string checksum_name = "sha256";
  std::array<std::byte, 64> salt = {};
};

// Of the first kLuks2BinaryBytes of a copy that lies at `offset` of the header; the checksum is not
// looked at. kInvalid: there is none. kCorrupt, kUnsupported: there is one that cannot be used.
Result<Luks2Binary> parse_luks2_binary(Bytes bytes, Luks2Copy copy, uint64_t offset,
                                       const Refusal& refusal);

// `bytes` is a whole copy of `binary`. kCorrupt: it has changed since it was written.
Result<void> check_luks2_checksum(const Luks2Binary& binary, Bytes bytes, const Refusal& refusal);

// The text of its JSON area. kCorrupt: it is not ended, or something stands behind its end.
Result<std::string_view> luks2_json_text(Bytes bytes, const Refusal& refusal);

// A whole copy with its checksum. `json` is shorter than header_bytes - kLuks2BinaryBytes.
Result<std::vector<std::byte>> encode_luks2_copy(const Luks2Binary& binary, Luks2Copy copy,
                                                 std::string_view json);

}  // namespace ringdisk::luks
