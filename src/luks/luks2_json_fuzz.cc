// SPDX-License-Identifier: Apache-2.0
// Any text as the metadata of a LUKS2 header of 16 KiB: trees are bounded and come back from their
// own encoding; accepted metadata keeps its promises, also after a slot was added and removed.
#include "luks/luks2_document.h"

namespace {

namespace luks = ringdisk::luks;
using ringdisk::Result;

constexpr uint64_t kHeaderBytes = luks::kLuks2HeaderBytesMin;

void check_promises(const luks::Luks2Metadata& metadata) {
  const uint64_t end = 2 * kHeaderBytes + metadata.slot_area_bytes;
  for (const luks::Luks2Slot& recorded : metadata.slots) {
    CHECK_LT(recorded.slot.number, luks::kLuks2ObjectsMax);
    CHECK_GE(recorded.slot.area.value(), 2 * kHeaderBytes);
    CHECK_LE(recorded.slot.area.value() + recorded.slot.area_size.value(), end);
    if (!recorded.is_usable()) continue;
    CHECK_LE(luks::material_bytes(recorded.slot.key_bytes), recorded.slot.area_size.value());
  }
}

void change_slots(luks::Json json, const luks::Luks2Metadata& metadata,
                  const luks::Refusal& refusal) {
  if (metadata.slots.empty()) return;
  const uint32_t number = metadata.slots.front().slot.number;
  remove_key_slot(json, number);
  Result<luks::Luks2Metadata> without = read_luks2_metadata(json, kHeaderBytes, refusal);
  CHECK(without.ok());
  CHECK_EQ(without.value().slots.size() + 1, metadata.slots.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  // why: libFuzzer hands out uint8_t, text is char
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  ringdisk::Diagnostics diagnostics;
  const luks::Refusal refusal(diagnostics, 0);
  Result<luks::Json> json = luks::parse_json(text);
  if (!json.ok()) return 0;
  const std::string encoded = encode_json(json.value());
  Result<luks::Json> again = luks::parse_json(encoded);
  CHECK(again.ok());
  CHECK(encode_json(again.value()) == encoded);
  Result<luks::Luks2Metadata> metadata = read_luks2_metadata(json.value(), kHeaderBytes, refusal);
  if (!metadata.ok()) return 0;
  check_promises(metadata.value());
  if (check_luks2_supported(metadata.value(), refusal).ok()) {
    luks::Luks2Binary binary;
    const luks::VolumeFacts facts = facts_of(binary, metadata.value());
    CHECK_LE(facts.slots.size(), size_t{luks::kLuks2ObjectsMax});
  }
  change_slots(std::move(json).value(), metadata.value(), refusal);
  return 0;
}
