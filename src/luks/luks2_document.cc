// SPDX-License-Identifier: Apache-2.0
// Objects of LUKS2's JSON, field by field in the order in which cryptsetup writes them.
#include "luks/luks2_document.h"

#include <algorithm>

#include "crypto/base64.h"

namespace ringdisk::luks {
namespace {

Json in_text(uint64_t number) { return Json::of_text(std::to_string(number)); }
Json base64_text(Bytes bytes) { return Json::of_text(encode_base64(bytes)); }
Json name_text(std::string_view name) { return Json::of_text(std::string(name)); }

Json kdf_object(const KdfParameters& kdf) {
  Json object = Json::object();
  object.set("type", name_text(name_of(kdf.kind)));
  if (kdf.kind == KdfKind::kPbkdf2) {
    object.set("hash", name_text(name_of(kdf.hash)));
    object.set("iterations", Json::of_number(kdf.iterations));
  } else {
    object.set("time", Json::of_number(kdf.iterations));
    object.set("memory", Json::of_number(kdf.memory_kib));
    object.set("cpus", Json::of_number(kdf.lanes));
  }
  object.set("salt", base64_text(kdf.salt));
  return object;
}

Json slot_object(const KeySlot& slot) {
  Json af = Json::object();
  af.set("type", Json::of_text("luks1"));
  af.set("stripes", Json::of_number(kStripes));
  af.set("hash", name_text(name_of(slot.af_hash)));
  Json area = Json::object();
  area.set("type", Json::of_text("raw"));
  area.set("offset", in_text(slot.area.value()));
  area.set("size", in_text(slot.area_size.value()));
  area.set("encryption", Json::of_text(slot.area_cipher.to_text()));
  area.set("key_size", Json::of_number(slot.area_key_bytes));
  Json object = Json::object();
  object.set("type", Json::of_text("luks2"));
  object.set("key_size", Json::of_number(slot.key_bytes));
  object.set("af", std::move(af));
  object.set("area", std::move(area));
  object.set("kdf", kdf_object(slot.kdf));
  if (slot.priority != kUsualPriority) object.set("priority", Json::of_number(slot.priority));
  return object;
}

Json digest_object(const VolumeDigest& digest) {
  Json segments = Json::array();
  segments.items.push_back(Json::of_text("0"));
  Json object = Json::object();
  object.set("type", Json::of_text("pbkdf2"));
  object.set("keyslots", Json::array());
  object.set("segments", std::move(segments));
  object.set("hash", name_text(name_of(digest.kdf.hash)));
  object.set("iterations", Json::of_number(digest.kdf.iterations));
  object.set("salt", base64_text(digest.kdf.salt));
  object.set("digest", base64_text(digest.digest));
  return object;
}

Json segment_object(const VolumeFacts& facts) {
  Json object = Json::object();
  object.set("type", Json::of_text("crypt"));
  object.set("offset", in_text(facts.payload_offset.value()));
  object.set("size",
             facts.payload_size ? in_text(facts.payload_size->value()) : Json::of_text("dynamic"));
  object.set("iv_tweak", in_text(facts.iv_offset));
  object.set("encryption", Json::of_text(facts.cipher.to_text()));
  object.set("sector_size", Json::of_number(facts.sector_size));
  return object;
}

void erase_text(Json& array, std::string_view text) {
  std::erase_if(array.items, [text](const Json& item) { return item.as_text() == text; });
}

// Takes `number` out of the "keyslots" of every object of a section.
void forget_slot(Json& json, std::string_view section, std::string_view number) {
  Json* objects = json.find(section);
  if (objects == nullptr) return;
  for (Json& object : objects->items) {
    Json* slots = object.find("keyslots");
    if (slots != nullptr) erase_text(*slots, number);
  }
}

// Those that are of nothing any more once `number`, which is still in their lists, goes.
void forget_unused_digests(Json& json, std::string_view number) {
  Json& digests = *json.find("digests");
  std::vector<std::string> unused;
  for (size_t i = 0; i < digests.items.size(); ++i) {
    const Json *slots = digests.items[i].find("keyslots"),
               *segments = digests.items[i].find("segments");
    const bool is_of_slot_alone =
        slots != nullptr && slots->items.size() == 1 && slots->items.front().as_text() == number;
    if (is_of_slot_alone && segments != nullptr && segments->items.empty()) {
      unused.push_back(digests.keys[i]);
    }
  }
  for (const std::string& key : unused) digests.erase(key);
}

}  // namespace

Json new_luks2_document(const VolumeFacts& facts, uint64_t header_bytes, uint64_t slot_area_bytes) {
  Json config = Json::object();
  config.set("json_size", in_text(header_bytes - kLuks2BinaryBytes));
  config.set("keyslots_size", in_text(slot_area_bytes));
  Json segments = Json::object(), digests = Json::object();
  segments.set("0", segment_object(facts));
  digests.set("0", digest_object(facts.digest));
  Json json = Json::object();
  json.set("keyslots", Json::object());
  json.set("tokens", Json::object());
  json.set("segments", std::move(segments));
  json.set("digests", std::move(digests));
  json.set("config", std::move(config));
  return json;
}

void put_key_slot(Json& json, const KeySlot& slot, uint32_t digest) {
  const std::string number = std::to_string(slot.number);
  json.find("keyslots")->set(number, slot_object(slot));
  Json& named = *json.find("digests")->find(std::to_string(digest))->find("keyslots");
  erase_text(named, number);
  named.items.push_back(Json::of_text(number));
}

void set_slot_priority(Json& json, uint32_t number, uint32_t priority) {
  Json& slot = *json.find("keyslots")->find(std::to_string(number));
  if (priority == kUsualPriority) {
    slot.erase("priority");
  } else {
    slot.set("priority", Json::of_number(priority));
  }
}

void remove_key_slot(Json& json, uint32_t number) {
  const std::string text = std::to_string(number);
  json.find("keyslots")->erase(text);
  forget_unused_digests(json, text);
  forget_slot(json, "digests", text);
  forget_slot(json, "tokens", text);
}

std::optional<HostOffset> find_free_area(const Luks2Metadata& metadata, uint64_t header_bytes,
                                         uint64_t bytes) {
  std::vector<HostRange> taken;
  for (const Luks2Slot& recorded : metadata.slots) {
    taken.emplace_back(recorded.slot.area, recorded.slot.area_size);
  }
  std::sort(taken.begin(), taken.end(),
            [](const HostRange& one, const HostRange& other) { return one.offset < other.offset; });
  const HostOffset end(2 * header_bytes + metadata.slot_area_bytes);
  HostOffset at(2 * header_bytes);
  for (const HostRange& range : taken) {
    if (range.offset >= at + ByteCount(bytes)) break;
    at = std::max(at, range.end().align_up(kLuks2AreaAlignment));
  }
  if (at > end || (end - at).value() < bytes) return std::nullopt;
  return at;
}

}  // namespace ringdisk::luks
