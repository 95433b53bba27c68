// SPDX-License-Identifier: Apache-2.0
// Judging a request for a new volume, and finding places for its parts.
#include <algorithm>

#include "crypto/random_bytes.h"
#include "crypto/sector_cipher.h"
#include "luks/format.h"

namespace ringdisk::luks {
namespace {

constexpr uint64_t kPayloadAlignment = 1 << 20;
constexpr uint64_t kLuks2PayloadOffset = 16 << 20;
constexpr size_t kLuks1NameBytesMax = 31;

uint64_t round_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// One request being judged.
class Planner {
 public:
  Planner(const FormatRequest& request, const Refusal& refusal)
      : request_(request), refusal_(refusal) {}

  Result<FormatPlaces> plan() {
    RETURN_IF_ERROR(judge_cipher());
    RETURN_IF_ERROR(judge_texts());
    RETURN_IF_ERROR(judge_numbers());
    if (request_.version == 1) return plan_luks1();
    return plan_luks2();
  }

 private:
  Result<void> judge_cipher() const;
  Result<void> judge_texts() const;
  Result<void> judge_numbers() const;
  Result<FormatPlaces> plan_luks1() const;
  Result<FormatPlaces> plan_luks2() const;
  Result<void> judge_payload_offset(uint64_t offset, uint64_t header_end) const;

  const FormatRequest& request_;
  const Refusal& refusal_;
};

Result<void> Planner::judge_cipher() const {
  if (request_.version != 1 && request_.version != 2) {
    return refusal_.invalid("LUKS has versions 1 and 2, not " + std::to_string(request_.version));
  }
  const size_t key_bytes = request_.key_bytes;
  if (key_bytes == 0 || key_bytes > kKeyBytesMax ||
      !is_cipher_available(request_.cipher, key_bytes)) {
    return refusal_.unsupported("there is no cipher '" + request_.cipher.to_text() +
                                "' with a key of " + std::to_string(key_bytes * 8) + " bits");
  }
  if (!request_.volume_key.empty() && request_.volume_key.size() != key_bytes) {
    return refusal_.invalid("the volume key has " + std::to_string(request_.volume_key.size() * 8) +
                            " bits, not " + std::to_string(key_bytes * 8));
  }
  const std::string hash(name_of(request_.hash));
  if (!is_available(request_.hash)) {
    return refusal_.unsupported("the header is to use the hash '" + hash + "', which " +
                                std::string(why_unavailable(hash)));
  }
  if (request_.version == 1 && digest_size(request_.hash) < kLuks1DigestBytes) {
    return refusal_.unsupported("the hash '" + hash + "' is too short for LUKS1; use LUKS2");
  }
  return {};
}

Result<void> Planner::judge_texts() const {
  if (!request_.uuid.empty() && !is_uuid(request_.uuid)) {
    return refusal_.invalid("'" + request_.uuid + "' is no UUID, such as " + kExampleUuid);
  }
  if (request_.label.size() > kLabelBytesMax || request_.subsystem.size() > kLabelBytesMax) {
    return refusal_.invalid("a label has at most " + std::to_string(kLabelBytesMax) + " bytes");
  }
  if (request_.version == 2) return {};
  if (!request_.label.empty() || !request_.subsystem.empty()) {
    return refusal_.invalid("LUKS1 has no labels; use LUKS2");
  }
  const bool fits = request_.cipher.cipher.size() <= kLuks1NameBytesMax &&
                    request_.cipher.mode_and_iv().size() <= kLuks1NameBytesMax;
  if (!fits) return refusal_.invalid("the cipher's name is too long for LUKS1");
  if (request_.kdf.kind.value_or(KdfKind::kPbkdf2) != KdfKind::kPbkdf2) {
    return refusal_.invalid("LUKS1 has only pbkdf2; use LUKS2 for " +
                            std::string(name_of(*request_.kdf.kind)));
  }
  return {};
}

Result<void> Planner::judge_numbers() const {
  const uint32_t slots = request_.version == 1 ? kLuks1Slots : kLuks2ObjectsMax;
  if (request_.slot >= slots) {
    return refusal_.invalid("key slots are 0 to " + std::to_string(slots - 1));
  }
  if (!is_sector_size(request_.sector_size)) {
    return refusal_.invalid("sectors have 512, 1024, 2048 or 4096 bytes, not " +
                            std::to_string(request_.sector_size));
  }
  if (request_.version == 1 && request_.sector_size != 512) {
    return refusal_.invalid("LUKS1 has sectors of 512 bytes; use LUKS2");
  }
  const KdfKind usual = request_.version == 1 ? KdfKind::kPbkdf2 : KdfKind::kArgon2id;
  return check_kdf_choice(request_.kdf, usual, refusal_);
}

Result<void> Planner::judge_payload_offset(uint64_t offset, uint64_t header_end) const {
  if (offset % request_.sector_size != 0 || offset > kOffsetMax) {
    return refusal_.invalid("the encrypted data cannot begin at " + std::to_string(offset) +
                            ": that is no whole number of sectors");
  }
  if (request_.is_detached || offset >= header_end) return {};
  return refusal_.invalid("the encrypted data cannot begin at " + std::to_string(offset) +
                          ": the header needs " + std::to_string(header_end) + " bytes");
}

Result<FormatPlaces> Planner::plan_luks1() const {
  FormatPlaces places;
  places.header_end = luks1_header_end(static_cast<uint32_t>(request_.key_bytes));
  const uint64_t usual =
      request_.is_detached ? 0 : round_up(places.header_end.value(), kPayloadAlignment);
  places.payload_offset = request_.payload_offset.value_or(ByteCount(usual));
  RETURN_IF_ERROR(judge_payload_offset(places.payload_offset.value(), places.header_end.value()));
  const uint64_t sectors = places.payload_offset.value() / kMaterialSectorBytes;
  // A slot behind the data's beginning would be none; another storage's offset says nothing of it.
  const bool fits =
      sectors <= ~uint32_t{0} && (sectors == 0 || places.payload_offset >= places.header_end);
  if (fits) return places;
  return refusal_.invalid("LUKS1 cannot have its data begin at " +
                          std::to_string(places.payload_offset.value()));
}

Result<FormatPlaces> Planner::plan_luks2() const {
  if (!is_luks2_header_size(request_.luks2_header_bytes)) {
    return refusal_.invalid("a LUKS2 header has 16 KiB to 4 MiB, a power of two");
  }
  const uint64_t fronts = 2 * request_.luks2_header_bytes;
  const uint64_t usual = std::max(kLuks2PayloadOffset, round_up(2 * fronts, kPayloadAlignment));
  FormatPlaces places;
  places.payload_offset =
      request_.payload_offset.value_or(ByteCount(request_.is_detached ? 0 : usual));
  const uint64_t end = places.payload_offset.is_zero() ? usual : places.payload_offset.value();
  const uint64_t room = end > fronts ? end - fronts : 0;
  const uint64_t all =
      std::min(room, kLuks2SlotAreaBytesMax) / kLuks2AreaAlignment * kLuks2AreaAlignment;
  places.slot_area_bytes = request_.luks2_slot_area_bytes.value_or(all);
  places.header_end = ByteCount(fronts + places.slot_area_bytes);
  RETURN_IF_ERROR(judge_payload_offset(places.payload_offset.value(), places.header_end.value()));
  const uint64_t least = round_up(material_bytes(request_.key_bytes), kLuks2AreaAlignment);
  const bool fits = places.slot_area_bytes >= least && places.slot_area_bytes <= all &&
                    places.slot_area_bytes % kLuks2AreaAlignment == 0;
  if (fits) return places;
  return refusal_.invalid("the key slot area cannot have " +
                          std::to_string(places.slot_area_bytes) + " bytes: it has " +
                          std::to_string(least) + " to " + std::to_string(all) +
                          ", in multiples of " + std::to_string(kLuks2AreaAlignment));
}

}  // namespace

Result<FormatPlaces> plan_format(const FormatRequest& request, const Refusal& refusal) {
  return Planner(request, refusal).plan();
}

bool is_uuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char letter = text[i];
    const bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
    const bool is_digit = (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'f') ||
                          (letter >= 'A' && letter <= 'F');
    if (is_dash ? letter != '-' : !is_digit) return false;
  }
  return true;
}

Result<std::string> make_uuid() {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::array<std::byte, 16> bytes;
  RETURN_IF_ERROR(fill_with_secret_random(bytes));
  bytes[6] = (bytes[6] & std::byte{0x0f}) | std::byte{0x40};  // version 4
  bytes[8] = (bytes[8] & std::byte{0x3f}) | std::byte{0x80};  // of RFC 4122
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[static_cast<size_t>(bytes[i]) >> 4];
    text += kDigits[static_cast<size_t>(bytes[i]) & 15];
  }
  return text;
}

}  // namespace ringdisk::luks
