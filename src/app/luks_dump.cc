// SPDX-License-Identifier: Apache-2.0
// Headers of both versions as text and JSON.
#include "app/luks_dump.h"

#include "app/json_text.h"

namespace ringdisk {
namespace {

using luks::KdfKind;
using luks::KdfParameters;

// Texts come from whoever made the header: none of them begins a line or moves the cursor.
std::string shown(std::string_view text) {
  std::string safe;
  for (char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    safe += byte < 0x20 || byte == 0x7f ? '?' : letter;
  }
  return safe;
}

std::string line(std::string_view key, const std::string& value) {
  std::string text(key);
  text += ':';
  text.resize(std::max<size_t>(text.size(), 15), ' ');
  return text + "\t" + shown(value) + "\n";
}

std::string inner_line(std::string_view key, const std::string& value) {
  std::string text = "\t" + std::string(key) + ":";
  text.resize(std::max<size_t>(text.size(), 13), ' ');
  return text + shown(value) + "\n";
}

std::string joined(const std::vector<std::string>& words, const char* otherwise) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text.empty() ? otherwise : text;
}

std::string number(uint64_t value) { return std::to_string(value); }

std::string luks1_as_text(const luks::Luks1Header& header, const std::string& name) {
  std::string text = "LUKS header information for " + shown(name) + "\n\n";
  text += line("Version", "1");
  text += line("Cipher name", header.cipher.cipher);
  text += line("Cipher mode", header.cipher.mode_and_iv());
  text += line("Hash spec", std::string(name_of(header.hash)));
  text += line("Payload offset", number(header.payload_sector));
  text += line("MK bits", number(header.key_bytes * 8));
  text += line("MK iterations", number(header.digest_iterations));
  text += line("UUID", header.uuid) + "\n";
  for (uint32_t i = 0; i < luks::kLuks1Slots; ++i) {
    const luks::Luks1Slot& slot = header.slots[i];
    const char* otherwise = slot.odd_state ? ": DAMAGED\n" : ": DISABLED\n";
    text += "Key Slot " + number(i) + (slot.is_active ? ": ENABLED\n" : otherwise);
    if (!slot.is_active) continue;
    text += "\tIterations:         \t" + number(slot.iterations) + "\n";
    text += "\tKey material offset:\t" + number(slot.material_sector) + "\n";
    text += "\tAF stripes:            \t" + number(luks::kStripes) + "\n";
  }
  return text;
}

std::string kdf_as_text(const KdfParameters& kdf) {
  std::string text = inner_line("PBKDF", std::string(name_of(kdf.kind)));
  if (kdf.kind == KdfKind::kPbkdf2) {
    return text + inner_line("Hash", std::string(name_of(kdf.hash))) +
           inner_line("Iterations", number(kdf.iterations));
  }
  return text + inner_line("Time cost", number(kdf.iterations)) +
         inner_line("Memory", number(kdf.memory_kib)) + inner_line("Threads", number(kdf.lanes));
}

std::string slot_as_text(const luks::Luks2Slot& recorded) {
  constexpr const char* kPriorities[] = {"ignored", "normal", "preferred"};
  const luks::KeySlot& slot = recorded.slot;
  std::string text = "  " + number(slot.number) + ": " + shown(recorded.type) + "\n";
  text += inner_line("Key", number(slot.key_bytes * 8) + " bits");
  text += inner_line("Priority", kPriorities[slot.priority]);
  if (recorded.is_usable()) {
    text += inner_line("Cipher", slot.area_cipher.to_text());
    text += inner_line("Cipher key", number(slot.area_key_bytes * 8) + " bits");
    text += kdf_as_text(slot.kdf);
    text += inner_line("AF stripes", number(luks::kStripes));
    text += inner_line("AF hash", std::string(name_of(slot.af_hash)));
  } else {
    text += inner_line("Unusable", recorded.unusable);
  }
  text += inner_line("Area offset", number(slot.area.value()) + " [bytes]");
  text += inner_line("Area length", number(slot.area_size.value()) + " [bytes]");
  return text;
}

std::string segment_as_text(const luks::Luks2Segment& segment) {
  std::string text = "  " + number(segment.number) + ": " + shown(segment.type) + "\n";
  text += "\toffset: " + number(segment.offset) + " [bytes]\n";
  text +=
      "\tlength: " + (segment.size ? number(*segment.size) + " [bytes]" : "(whole device)") + "\n";
  if (segment.type != "crypt") return text + "\n";
  text += "\tcipher: " + shown(segment.encryption) + "\n";
  return text + "\tsector: " + number(segment.sector_size) + " [bytes]\n\n";
}

std::string luks2_as_text(const luks::Luks2Header& header) {
  const luks::Luks2Binary& binary = header.binary;
  const luks::Luks2Metadata& metadata = header.metadata;
  std::string text = "LUKS header information\n";
  text += line("Version", "2");
  text += line("Epoch", number(binary.sequence));
  text += line("Metadata area", number(binary.header_bytes) + " [bytes]");
  text += line("Keyslots area", number(metadata.slot_area_bytes) + " [bytes]");
  text += line("UUID", binary.uuid);
  text += line("Label", binary.label.empty() ? "(no label)" : binary.label);
  text += line("Subsystem", binary.subsystem.empty() ? "(no subsystem)" : binary.subsystem);
  text += line("Flags", joined(metadata.flags, "(no flags)"));
  if (!metadata.requirements.empty()) {
    text += line("Requirements", joined(metadata.requirements, ""));
  }
  if (header.bad_copy) text += line("Damage", damage_of(header));
  text += "\nData segments:\n";
  for (const luks::Luks2Segment& segment : metadata.segments) text += segment_as_text(segment);
  text += "Keyslots:\n";
  for (const luks::Luks2Slot& slot : metadata.slots) text += slot_as_text(slot);
  text += "Tokens:\n";
  for (const luks::Luks2Token& token : metadata.tokens) {
    text += "  " + number(token.number) + ": " + shown(token.type) + "\n";
    for (uint32_t slot : token.slots) text += inner_line("Keyslot", number(slot));
  }
  text += "Digests:\n";
  for (const luks::Luks2Digest& digest : metadata.digests) {
    text += "  " + number(digest.digest.number) + ": " + shown(digest.type) + "\n";
    if (!digest.is_usable()) {
      text += inner_line("Unusable", digest.unusable);
      continue;
    }
    text += inner_line("Hash", std::string(name_of(digest.digest.kdf.hash)));
    text += inner_line("Iterations", number(digest.digest.kdf.iterations));
  }
  return text;
}

void kdf_as_json(const luks::KeySlot& slot, JsonText& json) {
  json.key("kdf"), json.text(name_of(slot.kdf.kind));
  json.key("iterations"), json.number(slot.kdf.iterations);
  if (slot.kdf.kind == KdfKind::kPbkdf2) {
    json.key("hash"), json.text(name_of(slot.kdf.hash));
  } else {
    json.key("memory-kib"), json.number(slot.kdf.memory_kib);
    json.key("threads"), json.number(slot.kdf.lanes);
  }
  json.key("area-cipher"), json.text(slot.area_cipher.to_text());
}

// `unusable`: why this program cannot open it; empty where it can.
void slot_as_json(const luks::KeySlot& slot, std::string_view type, std::string_view unusable,
                  JsonText& json) {
  json.begin_object();
  json.key("slot"), json.number(slot.number);
  json.key("type"), json.text(type);
  json.key("key-bits"), json.number(slot.key_bytes * 8);
  if (slot.priority != luks::kUsualPriority) json.key("priority"), json.number(slot.priority);
  if (unusable.empty()) {
    kdf_as_json(slot, json);
  } else {
    json.key("unusable"), json.text(unusable);
  }
  json.key("area-offset"), json.number(slot.area.value());
  json.key("area-size"), json.number(slot.area_size.value());
  json.end_object();
}

void texts_as_json(std::string_view key, const std::vector<std::string>& texts, JsonText& json) {
  json.key(key), json.begin_array();
  for (const std::string& text : texts) json.text(text);
  json.end_array();
}

void numbers_as_json(std::string_view key, const std::vector<uint32_t>& numbers, JsonText& json) {
  json.key(key), json.begin_array();
  for (const uint32_t number : numbers) json.number(number);
  json.end_array();
}

void tokens_as_json(const luks::Luks2Metadata& metadata, JsonText& json) {
  json.key("tokens"), json.begin_array();
  for (const luks::Luks2Token& token : metadata.tokens) {
    json.begin_object();
    json.key("token"), json.number(token.number);
    json.key("type"), json.text(token.type);
    numbers_as_json("keyslots", token.slots, json);
    json.end_object();
  }
  json.end_array();
}

// A digest without segments is of key slots that open something else than the disk.
void digests_as_json(const luks::Luks2Metadata& metadata, JsonText& json) {
  json.key("digests"), json.begin_array();
  for (const luks::Luks2Digest& digest : metadata.digests) {
    json.begin_object();
    json.key("digest"), json.number(digest.digest.number);
    json.key("type"), json.text(digest.type);
    numbers_as_json("keyslots", digest.slots, json);
    numbers_as_json("segments", digest.segments, json);
    json.end_object();
  }
  json.end_array();
}

void luks1_as_json(const luks::Luks1Header& header, JsonText& json) {
  const luks::VolumeFacts facts = facts_of(header);
  json.key("cipher"), json.text(header.cipher.to_text());
  json.key("key-bits"), json.number(header.key_bytes * 8);
  json.key("hash"), json.text(name_of(header.hash));
  json.key("sector-size"), json.number(512);
  json.key("payload-offset"), json.number(facts.payload_offset.value());
  json.key("keyslots"), json.begin_array();
  for (const luks::KeySlot& slot : facts.slots) slot_as_json(slot, "luks1", "", json);
  json.end_array();
}

void luks2_as_json(const luks::Luks2Header& header, JsonText& json) {
  const luks::Luks2Metadata& metadata = header.metadata;
  const luks::Luks2Segment& segment = metadata.segments.front();
  json.key("label"), json.text(header.binary.label);
  json.key("subsystem"), json.text(header.binary.subsystem);
  json.key("epoch"), json.number(header.binary.sequence);
  json.key("metadata-size"), json.number(header.binary.header_bytes);
  json.key("keyslots-size"), json.number(metadata.slot_area_bytes);
  json.key("cipher"), json.text(segment.encryption);
  json.key("sector-size"), json.number(segment.sector_size);
  json.key("payload-offset"), json.number(segment.offset);
  if (segment.size) json.key("payload-size"), json.number(*segment.size);
  texts_as_json("flags", metadata.flags, json);
  texts_as_json("requirements", metadata.requirements, json);
  if (header.bad_copy) json.key("damage"), json.text(damage_of(header));
  json.key("keyslots"), json.begin_array();
  for (const luks::Luks2Slot& recorded : metadata.slots) {
    slot_as_json(recorded.slot, recorded.type, recorded.unusable, json);
  }
  json.end_array();
  tokens_as_json(metadata, json);
  digests_as_json(metadata, json);
}

}  // namespace

std::string luks_as_text(const luks::LuksHeader& header, const std::string& name) {
  return header.luks1 ? luks1_as_text(*header.luks1, name) : luks2_as_text(*header.luks2);
}

std::string luks_as_json(const luks::LuksHeader& header, const std::string& name) {
  JsonText json;
  json.begin_object();
  json.key("filename"), json.text(name);
  json.key("version"), json.number(header.version());
  json.key("uuid"), json.text(header.uuid());
  if (header.luks1) {
    luks1_as_json(*header.luks1, json);
  } else {
    luks2_as_json(*header.luks2, json);
  }
  json.end_object();
  return json.result() + "\n";
}

}  // namespace ringdisk
