// SPDX-License-Identifier: Apache-2.0
// Reading and writing the header of LUKS1. Fields are taken first and judged afterwards.
#include "luks/luks1_header.h"

#include <algorithm>

#include "base/endian.h"
#include "base/span_reader.h"
#include "luks/text_field.h"

namespace ringdisk::luks {
namespace {

constexpr uint32_t kSlotActive = 0x00ac71f3;
constexpr uint32_t kSlotFree = 0x0000dead;
constexpr uint64_t kAlignment = 4096;

struct RawSlot {
  uint32_t state = 0, stripes = 0;
};

// Sectors that the material of a slot takes.
uint64_t material_sectors(uint32_t key_bytes) {
  return material_bytes(key_bytes) / kMaterialSectorBytes;
}

// One header being parsed.
class Parser {
 public:
  Parser(Bytes bytes, const Refusal& refusal) : reader_(bytes), refusal_(refusal) {}

  Result<Luks1Header> parse() {
    RETURN_IF_ERROR(take_fields());
    RETURN_IF_ERROR(judge_fields());
    RETURN_IF_ERROR(judge_slots());
    return std::move(header_);
  }

 private:
  Result<void> take_fields();
  void take_slot(Luks1Slot& slot, RawSlot& raw);
  Result<void> judge_fields();
  Result<void> judge_slots() const;
  Result<void> judge_slot(uint32_t number) const;

  SpanReader reader_;
  const Refusal& refusal_;
  Luks1Header header_;
  std::string cipher_, mode_, hash_;
  std::array<RawSlot, kLuks1Slots> raw_;
};

void copy_field(Bytes source, MutableBytes target) {
  if (source.size() == target.size()) copy_bytes(source, target);
}

Result<void> Parser::take_fields() {
  const Bytes magic = reader_.bytes(kMagic.size());
  const uint16_t version = reader_.be16();
  if (!reader_.ok() || as_text(magic) != kMagic || version != 1) {
    return refusal_.invalid("there is no LUKS1 header");
  }
  cipher_ = text_field(reader_.bytes(32));
  mode_ = text_field(reader_.bytes(32));
  hash_ = text_field(reader_.bytes(32));
  header_.payload_sector = reader_.be32();
  header_.key_bytes = reader_.be32();
  copy_field(reader_.bytes(kLuks1DigestBytes), header_.digest);
  copy_field(reader_.bytes(kLuks1SaltBytes), header_.digest_salt);
  header_.digest_iterations = reader_.be32();
  header_.uuid = text_field(reader_.bytes(kUuidFieldBytes));
  for (uint32_t i = 0; i < kLuks1Slots; ++i) take_slot(header_.slots[i], raw_[i]);
  if (!reader_.ok()) return refusal_.corrupt("the file ends within its LUKS1 header");
  return {};
}

void Parser::take_slot(Luks1Slot& slot, RawSlot& raw) {
  raw.state = reader_.be32();
  slot.iterations = reader_.be32();
  copy_field(reader_.bytes(kLuks1SaltBytes), slot.salt);
  slot.material_sector = reader_.be32();
  raw.stripes = reader_.be32();
  slot.is_active = raw.state == kSlotActive;
  if (!slot.is_active && raw.state != kSlotFree) slot.odd_state = raw.state;
}

Result<void> Parser::judge_fields() {
  Result<CipherSpec> cipher = CipherSpec::parse(cipher_, mode_);
  if (!cipher.ok()) {
    return refusal_.corrupt("the header names '" + cipher_ + "-" + mode_ + "' as its cipher");
  }
  header_.cipher = std::move(cipher).value();
  const std::optional<Hash> hash = find_available_hash(hash_);
  if (!hash) {
    return refusal_.unsupported("the header uses the hash '" + hash_ + "', which " +
                                std::string(why_unavailable(hash_)));
  }
  header_.hash = *hash;
  if (header_.key_bytes == 0 || header_.key_bytes > kKeyBytesMax) {
    return refusal_.corrupt("the header tells of a key of " + std::to_string(header_.key_bytes) +
                            " bytes");
  }
  if (header_.digest_iterations == 0) {
    return refusal_.corrupt("the header's digest has no iterations");
  }
  return {};
}

Result<void> Parser::judge_slot(uint32_t number) const {
  const Luks1Slot& slot = header_.slots[number];
  const std::string subject = "key slot " + std::to_string(number);
  if (raw_[number].stripes != kStripes) {
    return refusal_.corrupt(subject + " has " + std::to_string(raw_[number].stripes) +
                            " stripes instead of " + std::to_string(kStripes));
  }
  if (uint64_t{slot.material_sector} * kMaterialSectorBytes < kLuks1HeaderBytes) {
    return refusal_.corrupt(subject + " lies within the header");
  }
  const uint64_t end = slot.material_sector + material_sectors(header_.key_bytes);
  if (header_.payload_sector != 0 && end > header_.payload_sector) {
    return refusal_.corrupt(subject + " reaches into the encrypted data");
  }
  return {};
}

Result<void> Parser::judge_slots() const {
  std::array<uint32_t, kLuks1Slots> order;
  for (uint32_t i = 0; i < kLuks1Slots; ++i) {
    RETURN_IF_ERROR(judge_slot(i));
    order[i] = i;
  }
  auto place = [this](uint32_t slot) { return header_.slots[slot].material_sector; };
  std::sort(order.begin(), order.end(),
            [&place](uint32_t one, uint32_t other) { return place(one) < place(other); });
  for (uint32_t i = 1; i < kLuks1Slots; ++i) {
    if (place(order[i]) >= place(order[i - 1]) + material_sectors(header_.key_bytes)) continue;
    return refusal_.corrupt("key slots " + std::to_string(order[i - 1]) + " and " +
                            std::to_string(order[i]) + " lie in one another");
  }
  return {};
}

}  // namespace

Result<Luks1Header> parse_luks1_header(Bytes bytes, const Refusal& refusal) {
  return Parser(bytes, refusal).parse();
}

std::array<std::byte, kLuks1HeaderBytes> encode_luks1_header(const Luks1Header& header) {
  std::array<std::byte, kLuks1HeaderBytes> bytes = {};
  const MutableBytes all(bytes);
  put_text_field(kMagic, all.first(6));
  store_be16(&bytes[6], 1);
  put_text_field(header.cipher.cipher, all.subspan(8, 32));
  put_text_field(header.cipher.mode_and_iv(), all.subspan(40, 32));
  put_text_field(name_of(header.hash), all.subspan(72, 32));
  store_be32(&bytes[104], header.payload_sector);
  store_be32(&bytes[108], header.key_bytes);
  copy_bytes(header.digest, all.subspan(112, kLuks1DigestBytes));
  copy_bytes(header.digest_salt, all.subspan(132, kLuks1SaltBytes));
  store_be32(&bytes[164], header.digest_iterations);
  put_text_field(header.uuid, all.subspan(168, kUuidFieldBytes));
  for (uint32_t i = 0; i < kLuks1Slots; ++i) {
    const Luks1Slot& slot = header.slots[i];
    const MutableBytes target = all.subspan(208 + 48 * i, 48);
    const uint32_t otherwise = slot.odd_state.value_or(kSlotFree);
    store_be32(target.data(), slot.is_active ? kSlotActive : otherwise);
    store_be32(&target[4], slot.iterations);
    copy_bytes(slot.salt, target.subspan(8, kLuks1SaltBytes));
    store_be32(&target[40], slot.material_sector);
    store_be32(&target[44], kStripes);
  }
  return bytes;
}

namespace {

std::string why_unusable(const Luks1Slot& slot) {
  if (slot.odd_state) return "it is neither in use nor free";
  return slot.is_active && slot.iterations == 0 ? "it has no iterations" : "";
}

}  // namespace

VolumeFacts facts_of(const Luks1Header& header) {
  VolumeFacts facts;
  facts.version = 1;
  facts.uuid = header.uuid;
  facts.cipher = header.cipher;
  facts.payload_offset = ByteCount(uint64_t{header.payload_sector} * kMaterialSectorBytes);
  facts.slots_max = kLuks1Slots;
  facts.digest.kdf.hash = header.hash;
  facts.digest.kdf.iterations = header.digest_iterations;
  facts.digest.kdf.salt.assign(header.digest_salt.begin(), header.digest_salt.end());
  facts.digest.digest.assign(header.digest.begin(), header.digest.end());
  for (uint32_t i = 0; i < kLuks1Slots; ++i) {
    const Luks1Slot& recorded = header.slots[i];
    if (std::string why = why_unusable(recorded); !why.empty()) {
      UnusableSlot unusable;
      unusable.number = i;
      unusable.why = std::move(why);
      unusable.is_of_volume = true;
      facts.unusable_slots.push_back(std::move(unusable));
      continue;
    }
    if (!recorded.is_active) continue;
    KeySlot slot;
    slot.number = i;
    slot.kdf.hash = header.hash;
    slot.kdf.iterations = recorded.iterations;
    slot.kdf.salt.assign(recorded.salt.begin(), recorded.salt.end());
    slot.area_cipher = header.cipher;
    slot.area_key_bytes = slot.key_bytes = header.key_bytes;
    slot.af_hash = header.hash;
    slot.area = HostOffset(uint64_t{recorded.material_sector} * kMaterialSectorBytes);
    slot.area_size = ByteCount(material_bytes(header.key_bytes));
    facts.slots.push_back(std::move(slot));
  }
  return facts;
}

uint32_t luks1_material_sector(uint32_t slot, uint32_t key_bytes) {
  const uint64_t each = (material_bytes(key_bytes) + kAlignment - 1) / kAlignment * kAlignment;
  return static_cast<uint32_t>((kAlignment + slot * each) / kMaterialSectorBytes);
}

ByteCount luks1_header_end(uint32_t key_bytes) {
  return ByteCount(uint64_t{luks1_material_sector(kLuks1Slots, key_bytes)} * kMaterialSectorBytes);
}

}  // namespace ringdisk::luks
