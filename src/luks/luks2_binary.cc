// SPDX-License-Identifier: Apache-2.0
// Reading and writing the binary front of LUKS2 and what is around the JSON.
#include "luks/luks2_binary.h"

#include <algorithm>
#include <bit>

#include "base/endian.h"
#include "base/span_reader.h"
#include "crypto/digest.h"
#include "crypto/secret.h"
#include "luks/luks1_header.h"
#include "luks/text_field.h"

namespace ringdisk::luks {
namespace {

constexpr std::string_view kSecondMagic = "SKUL\xba\xbe";
constexpr size_t kChecksumAt = 448, kChecksumFieldBytes = 64;

std::string_view magic_of(Luks2Copy copy) {
  return copy == Luks2Copy::kFirst ? kMagic : kSecondMagic;
}

Result<void> compute_checksum(Hash hash, Bytes copy, MutableBytes checksum) {
  constexpr std::array<std::byte, kChecksumFieldBytes> kZeros = {};
  return compute_digest(
      hash,
      {copy.first(kChecksumAt), Bytes(kZeros), copy.subspan(kChecksumAt + kChecksumFieldBytes)},
      checksum);
}

}  // namespace

bool has_luks_magic(Bytes front) {
  if (front.size() < kMagic.size()) return false;
  const std::string_view magic = as_text(front.first(kMagic.size()));
  return magic == kMagic || magic == kSecondMagic;
}

bool is_luks2_header_size(uint64_t bytes) {
  return std::has_single_bit(bytes) && bytes >= kLuks2HeaderBytesMin &&
         bytes <= kLuks2HeaderBytesMax;
}

Result<Luks2Binary> parse_luks2_binary(Bytes bytes, Luks2Copy copy, uint64_t offset,
                                       const Refusal& refusal) {
  SpanReader reader(bytes);
  Luks2Binary binary;
  const Bytes magic = reader.bytes(kMagic.size());
  const uint16_t version = reader.be16();
  if (!reader.ok() || as_text(magic) != magic_of(copy)) {
    return refusal.invalid("there is no LUKS header");
  }
  if (version != 2) {
    return refusal.unsupported("LUKS version " + std::to_string(version) + " is not known");
  }
  binary.header_bytes = reader.be64();
  binary.sequence = reader.be64();
  binary.label = text_field(reader.bytes(48));
  binary.checksum_name = text_field(reader.bytes(32));
  const Bytes salt = reader.bytes(binary.salt.size());
  binary.uuid = text_field(reader.bytes(kUuidFieldBytes));
  binary.subsystem = text_field(reader.bytes(48));
  const uint64_t recorded_offset = reader.be64();
  if (!reader.ok()) return refusal.corrupt("the file ends within its LUKS2 header");
  copy_bytes(salt, binary.salt);
  if (recorded_offset != offset) {
    return refusal.corrupt("the LUKS2 header at " + std::to_string(offset) +
                           " was made to lie at " + std::to_string(recorded_offset));
  }
  const bool fits = copy == Luks2Copy::kFirst || binary.header_bytes == offset;
  if (!is_luks2_header_size(binary.header_bytes) || !fits) {
    return refusal.corrupt("the LUKS2 header tells of " + std::to_string(binary.header_bytes) +
                           " bytes");
  }
  const bool is_ended = binary.label.size() <= kLabelBytesMax &&
                        binary.subsystem.size() <= kLabelBytesMax &&
                        binary.uuid.size() < kUuidFieldBytes;
  if (!is_ended) return refusal.corrupt("a text of the LUKS2 header has no end");
  return binary;
}

Result<void> check_luks2_checksum(const Luks2Binary& binary, Bytes bytes, const Refusal& refusal) {
  CHECK_EQ(bytes.size(), binary.header_bytes);
  const std::optional<Hash> hash = find_available_hash(binary.checksum_name);
  if (!hash) {
    return refusal.unsupported("the LUKS2 header has a checksum of the kind '" +
                               binary.checksum_name + "', which " +
                               std::string(why_unavailable(binary.checksum_name)));
  }
  std::array<std::byte, kDigestBytesMax> computed;
  const MutableBytes checksum = MutableBytes(computed).first(digest_size(*hash));
  RETURN_IF_ERROR(compute_checksum(*hash, bytes, checksum));
  if (equal_in_constant_time(checksum, bytes.subspan(kChecksumAt, checksum.size()))) return {};
  return refusal.corrupt("the LUKS2 header does not have the checksum it was written with");
}

Result<std::string_view> luks2_json_text(Bytes bytes, const Refusal& refusal) {
  const Bytes area = bytes.subspan(kLuks2BinaryBytes);
  const auto end = std::find(area.begin(), area.end(), std::byte{0});
  const bool is_clean = end != area.end() && std::all_of(end, area.end(), [](std::byte one) {
                          return one == std::byte{0};
                        });
  if (!is_clean) return refusal.corrupt("the JSON of the LUKS2 header has no end");
  return as_text(area.first(static_cast<size_t>(end - area.begin())));
}

Result<std::vector<std::byte>> encode_luks2_copy(const Luks2Binary& binary, Luks2Copy copy,
                                                 std::string_view json) {
  CHECK(is_luks2_header_size(binary.header_bytes));
  CHECK_LT(json.size(), binary.header_bytes - kLuks2BinaryBytes);
  const std::optional<Hash> hash = find_hash(binary.checksum_name);
  CHECK(hash.has_value());
  std::vector<std::byte> bytes(binary.header_bytes);
  const MutableBytes all(bytes);
  put_text_field(magic_of(copy), all.first(6));
  store_be16(&bytes[6], 2);
  store_be64(&bytes[8], binary.header_bytes);
  store_be64(&bytes[16], binary.sequence);
  put_text_field(binary.label, all.subspan(24, 48));
  put_text_field(binary.checksum_name, all.subspan(72, 32));
  copy_bytes(binary.salt, all.subspan(104, binary.salt.size()));
  put_text_field(binary.uuid, all.subspan(168, kUuidFieldBytes));
  put_text_field(binary.subsystem, all.subspan(208, 48));
  store_be64(&bytes[256], copy == Luks2Copy::kFirst ? 0 : binary.header_bytes);
  copy_bytes(as_bytes(json), all.subspan(kLuks2BinaryBytes, json.size()));
  RETURN_IF_ERROR(compute_checksum(*hash, bytes, all.subspan(kChecksumAt, digest_size(*hash))));
  return bytes;
}

}  // namespace ringdisk::luks
