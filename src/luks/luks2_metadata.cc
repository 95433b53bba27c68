// SPDX-License-Identifier: Apache-2.0
// Reading the JSON of LUKS2, object by object. What the objects say of one another is judged in
// luks2_cross_check.cc.
#include "luks/luks2_metadata.h"

#include <algorithm>

#include "crypto/kdf.h"
#include "luks/json_fields.h"
#include "luks/luks2_cross_check.h"

namespace ringdisk::luks {
namespace {

constexpr uint64_t kNumberMax = ~uint32_t{0};

// Reads one header's JSON; lives for one parse.
class Reader {
 public:
  Reader(const Json& json, uint64_t header_bytes, const Refusal& refusal)
      : json_(json), header_bytes_(header_bytes), refusal_(refusal) {}

  Result<Luks2Metadata> read() {
    RETURN_IF_ERROR(read_config());
    RETURN_IF_ERROR(for_each("keyslots", "key slot", &Reader::read_slot));
    RETURN_IF_ERROR(for_each("segments", "segment", &Reader::read_segment));
    RETURN_IF_ERROR(for_each("digests", "digest", &Reader::read_digest));
    RETURN_IF_ERROR(for_each("tokens", "token", &Reader::read_token));
    RETURN_IF_ERROR(cross_check_luks2(metadata_, header_bytes_, refusal_));
    return std::move(metadata_);
  }

 private:
  using ReadOne = Result<void> (Reader::*)(const JsonFields& fields, uint32_t number);

  Result<void> for_each(std::string_view section, const char* subject, ReadOne read_one);
  Result<void> read_config();
  Result<void> read_slot(const JsonFields& fields, uint32_t number);
  Result<void> read_slot_key(const JsonFields& fields, Luks2Slot& recorded);
  Result<void> read_kdf(const JsonFields& fields, Luks2Slot& recorded);
  Result<void> read_segment(const JsonFields& fields, uint32_t number);
  Result<void> read_digest(const JsonFields& fields, uint32_t number);
  Result<void> read_token(const JsonFields& fields, uint32_t number);
  Result<std::vector<uint32_t>> read_numbers(const JsonFields& fields, std::string_view key);

  const Json& json_;
  const uint64_t header_bytes_;
  const Refusal& refusal_;
  Luks2Metadata metadata_;
};

// The first reason counts.
template <class Recorded>
void give_up(Recorded& recorded, std::string why) {
  if (recorded.unusable.empty()) recorded.unusable = std::move(why);
}

// The hash of that name into `hash`; where there is none, `recorded` is of no use.
template <class Recorded>
Result<void> read_hash(const JsonFields& fields, Hash& hash, Recorded& recorded) {
  ASSIGN_OR_RETURN(const std::string name, fields.text("hash"));
  const std::optional<Hash> found = find_available_hash(name);
  if (found) {
    hash = *found;
  } else {
    give_up(recorded,
            "it uses the hash '" + name + "', which " + std::string(why_unavailable(name)));
  }
  return {};
}

std::optional<uint32_t> object_number(std::string_view key) {
  const std::optional<uint64_t> number = parse_decimal(key);
  const bool is_canonical = number && std::to_string(*number) == key;
  if (!is_canonical || *number >= kLuks2ObjectsMax) return std::nullopt;
  return static_cast<uint32_t>(*number);
}

Result<void> Reader::for_each(std::string_view section, const char* subject, ReadOne read_one) {
  const Json* objects = json_.find(section);
  if (objects == nullptr || !objects->is(Json::Kind::kObject)) {
    return refusal_.corrupt("the LUKS2 header has no '" + std::string(section) + "'");
  }
  // By number, in whatever order they stand.
  for (uint32_t number = 0; number < kLuks2ObjectsMax; ++number) {
    const Json* object = objects->find(std::to_string(number));
    if (object == nullptr) continue;
    const JsonFields fields(*object, subject + (" " + std::to_string(number)), refusal_);
    RETURN_IF_ERROR((this->*read_one)(fields, number));
  }
  for (const std::string& key : objects->keys) {
    if (object_number(key)) continue;
    return refusal_.corrupt("'" + key + "' is no number of a " + subject + "; they are 0 to " +
                            std::to_string(kLuks2ObjectsMax - 1));
  }
  return {};
}

Result<void> Reader::read_config() {
  const JsonFields all(json_, "the LUKS2 header", refusal_);
  ASSIGN_OR_RETURN(const JsonFields config, all.object("config"));
  ASSIGN_OR_RETURN(const uint64_t json_bytes, config.number_in_text("json_size"));
  if (json_bytes != header_bytes_ - kLuks2BinaryBytes) {
    return config.wrong("json_size", "is not the size of the JSON area");
  }
  ASSIGN_OR_RETURN(metadata_.slot_area_bytes, config.number_in_text("keyslots_size"));
  const bool fits = metadata_.slot_area_bytes <= kLuks2SlotAreaBytesMax &&
                    metadata_.slot_area_bytes % kLuks2AreaAlignment == 0;
  if (!fits) return config.wrong("keyslots_size", "is no size that it may have");
  ASSIGN_OR_RETURN(metadata_.flags, config.texts("flags", false));
  if (!config.has("requirements")) return {};
  ASSIGN_OR_RETURN(const JsonFields requirements, config.object("requirements"));
  ASSIGN_OR_RETURN(metadata_.requirements, requirements.texts("mandatory", false));
  return {};
}

Result<void> Reader::read_slot(const JsonFields& fields, uint32_t number) {
  Luks2Slot recorded;
  KeySlot& slot = recorded.slot;
  slot.number = number;
  ASSIGN_OR_RETURN(recorded.type, fields.text("type"));
  ASSIGN_OR_RETURN(slot.key_bytes, fields.number("key_size", 0, kNumberMax));
  ASSIGN_OR_RETURN(const JsonFields area, fields.object("area"));
  ASSIGN_OR_RETURN(const std::string area_type, area.text("type"));
  ASSIGN_OR_RETURN(const uint64_t offset, area.number_in_text("offset"));
  ASSIGN_OR_RETURN(const uint64_t size, area.number_in_text("size"));
  slot.area = HostOffset(offset);
  slot.area_size = ByteCount(size);
  if (fields.has("priority")) {
    ASSIGN_OR_RETURN(const uint64_t priority, fields.number("priority", 0, 2));
    slot.priority = static_cast<uint32_t>(priority);
  }
  if (recorded.type == "luks2") {
    if (area_type != "raw") return area.wrong("type", "is '" + area_type + "', not 'raw'");
    RETURN_IF_ERROR(read_slot_key(fields, recorded));
  } else {
    give_up(recorded, "it is of the type '" + recorded.type + "'");
  }
  metadata_.slots.push_back(std::move(recorded));
  return {};
}

Result<void> Reader::read_slot_key(const JsonFields& fields, Luks2Slot& recorded) {
  KeySlot& slot = recorded.slot;
  RETURN_IF_ERROR(fields.number("key_size", 1, kNumberMax));
  // Volumes have no such key; what is not the volume's may be of any length.
  if (slot.key_bytes > kKeyBytesMax) {
    give_up(recorded, "its key has " + std::to_string(slot.key_bytes) + " bytes");
  }
  ASSIGN_OR_RETURN(const JsonFields kdf, fields.object("kdf"));
  RETURN_IF_ERROR(read_kdf(kdf, recorded));
  ASSIGN_OR_RETURN(const JsonFields af, fields.object("af"));
  ASSIGN_OR_RETURN(const std::string af_type, af.text("type"));
  if (af_type != "luks1") return af.wrong("type", "is '" + af_type + "', not 'luks1'");
  RETURN_IF_ERROR(af.number("stripes", kStripes, kStripes));
  RETURN_IF_ERROR(read_hash(af, slot.af_hash, recorded));
  ASSIGN_OR_RETURN(const JsonFields area, fields.object("area"));
  ASSIGN_OR_RETURN(slot.area_key_bytes, area.number("key_size", 1, kKeyBytesMax));
  ASSIGN_OR_RETURN(const std::string encryption, area.text("encryption"));
  Result<CipherSpec> cipher = CipherSpec::parse(encryption);
  if (cipher.ok()) {
    slot.area_cipher = std::move(cipher).value();
  } else {
    give_up(recorded, "its cipher '" + encryption + "' is not known");
  }
  if (slot.area_size.value() < material_bytes(slot.key_bytes)) {
    return area.wrong("size", "is too small for the key");
  }
  return {};
}

Result<void> Reader::read_kdf(const JsonFields& fields, Luks2Slot& recorded) {
  KdfParameters& kdf = recorded.slot.kdf;
  ASSIGN_OR_RETURN(const std::string type, fields.text("type"));
  const std::optional<KdfKind> kind = find_kdf(type);
  if (!kind) {
    give_up(recorded, "its key derivation '" + type + "' is not known");
    return {};
  }
  kdf.kind = *kind;
  ASSIGN_OR_RETURN(kdf.salt, fields.base64("salt", 8, 1024));
  if (kdf.kind == KdfKind::kPbkdf2) {
    RETURN_IF_ERROR(read_hash(fields, kdf.hash, recorded));
    ASSIGN_OR_RETURN(const uint64_t iterations, fields.number("iterations", 1, kNumberMax));
    kdf.iterations = static_cast<uint32_t>(iterations);
    return {};
  }
  ASSIGN_OR_RETURN(const uint64_t passes, fields.number("time", 1, kNumberMax));
  ASSIGN_OR_RETURN(const uint64_t memory, fields.number("memory", 8, kNumberMax));
  ASSIGN_OR_RETURN(const uint64_t lanes, fields.number("cpus", 1, kArgon2LanesMax));
  if (memory < 8 * lanes) return fields.wrong("memory", "is too little for its lanes");
  kdf.iterations = static_cast<uint32_t>(passes);
  kdf.memory_kib = static_cast<uint32_t>(memory);
  kdf.lanes = static_cast<uint32_t>(lanes);
  return {};
}

Result<void> Reader::read_segment(const JsonFields& fields, uint32_t number) {
  Luks2Segment segment;
  segment.number = number;
  ASSIGN_OR_RETURN(segment.type, fields.text("type"));
  ASSIGN_OR_RETURN(segment.offset, fields.number_in_text("offset"));
  ASSIGN_OR_RETURN(const std::string size, fields.text("size"));
  if (size != "dynamic") {
    ASSIGN_OR_RETURN(segment.size, fields.number_in_text("size"));
    if (*segment.size == 0) return fields.wrong("size", "is 0");
  }
  ASSIGN_OR_RETURN(segment.flags, fields.texts("flags", false));
  segment.has_integrity = fields.has("integrity");
  if (segment.type == "crypt") {
    ASSIGN_OR_RETURN(segment.encryption, fields.text("encryption"));
    ASSIGN_OR_RETURN(segment.iv_offset, fields.number_in_text("iv_tweak"));
    ASSIGN_OR_RETURN(const uint64_t sector_size, fields.number("sector_size", 512, 4096));
    segment.sector_size = static_cast<uint32_t>(sector_size);
    const bool is_size = (sector_size & (sector_size - 1)) == 0;
    if (!is_size) return fields.wrong("sector_size", "is no power of two");
  }
  metadata_.segments.push_back(std::move(segment));
  return {};
}

Result<std::vector<uint32_t>> Reader::read_numbers(const JsonFields& fields, std::string_view key) {
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, fields.texts(key, true));
  std::vector<uint32_t> numbers;
  for (const std::string& text : texts) {
    const std::optional<uint32_t> number = object_number(text);
    if (!number) return fields.wrong(key, "names '" + text + "', which is no number");
    if (std::find(numbers.begin(), numbers.end(), *number) != numbers.end()) {
      return fields.wrong(key, "names " + text + " twice");
    }
    numbers.push_back(*number);
  }
  return numbers;
}

Result<void> Reader::read_digest(const JsonFields& fields, uint32_t number) {
  Luks2Digest recorded;
  VolumeDigest& digest = recorded.digest;
  digest.number = number;
  ASSIGN_OR_RETURN(recorded.type, fields.text("type"));
  ASSIGN_OR_RETURN(recorded.slots, read_numbers(fields, "keyslots"));
  ASSIGN_OR_RETURN(recorded.segments, read_numbers(fields, "segments"));
  if (recorded.type != "pbkdf2") {
    give_up(recorded, "it is of the type '" + recorded.type + "'");
  } else {
    RETURN_IF_ERROR(read_hash(fields, digest.kdf.hash, recorded));
    ASSIGN_OR_RETURN(const uint64_t iterations, fields.number("iterations", 1, kNumberMax));
    digest.kdf.iterations = static_cast<uint32_t>(iterations);
    ASSIGN_OR_RETURN(digest.kdf.salt, fields.base64("salt", 8, 1024));
    ASSIGN_OR_RETURN(digest.digest,
                     fields.base64("digest", kDigestBytesMin, kVolumeDigestBytesMax));
  }
  metadata_.digests.push_back(std::move(recorded));
  return {};
}

Result<void> Reader::read_token(const JsonFields& fields, uint32_t number) {
  Luks2Token token;
  token.number = number;
  ASSIGN_OR_RETURN(token.type, fields.text("type"));
  ASSIGN_OR_RETURN(token.slots, read_numbers(fields, "keyslots"));
  metadata_.tokens.push_back(std::move(token));
  return {};
}

}  // namespace

Result<Luks2Metadata> read_luks2_metadata(const Json& json, uint64_t header_bytes,
                                          const Refusal& refusal) {
  return Reader(json, header_bytes, refusal).read();
}

}  // namespace ringdisk::luks
