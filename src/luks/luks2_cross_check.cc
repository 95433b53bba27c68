// SPDX-License-Identifier: Apache-2.0
// References, places, and what is supported at all. Numbers of objects are below kLuks2ObjectsMax,
// so that comparing all with all costs nothing.
#include "luks/luks2_cross_check.h"

#include <algorithm>

namespace ringdisk::luks {
namespace {

std::string slot_name(const Luks2Slot& recorded) {
  return "key slot " + std::to_string(recorded.slot.number);
}

bool has_slot(const Luks2Metadata& metadata, uint32_t number) {
  return std::any_of(metadata.slots.begin(), metadata.slots.end(),
                     [number](const Luks2Slot& one) { return one.slot.number == number; });
}

bool has_segment(const Luks2Metadata& metadata, uint32_t number) {
  return std::any_of(metadata.segments.begin(), metadata.segments.end(),
                     [number](const Luks2Segment& one) { return one.number == number; });
}

bool contains(const std::vector<uint32_t>& numbers, uint32_t number) {
  return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
}

// Key slots lie behind both copies of the header, within the key slot area.
Result<void> check_areas(const Luks2Metadata& metadata, uint64_t header_bytes,
                         const Refusal& refusal) {
  const uint64_t begin = 2 * header_bytes;
  const uint64_t end = begin + metadata.slot_area_bytes;
  for (size_t i = 0; i < metadata.slots.size(); ++i) {
    const KeySlot& slot = metadata.slots[i].slot;
    const uint64_t at = slot.area.value(), bytes = slot.area_size.value();
    if (bytes == 0 || at < begin || at > end || bytes > end - at) {
      return refusal.corrupt("the area of " + slot_name(metadata.slots[i]) +
                             " lies outside of the header's key slot area");
    }
    for (size_t k = 0; k < i; ++k) {
      const KeySlot& other = metadata.slots[k].slot;
      if (at < other.area.value() + other.area_size.value() && other.area.value() < at + bytes) {
        return refusal.corrupt("the areas of " + slot_name(metadata.slots[k]) + " and " +
                               slot_name(metadata.slots[i]) + " lie in one another");
      }
    }
  }
  return {};
}

bool has_flag_like(const Luks2Segment& segment, std::string_view prefix) {
  return std::any_of(segment.flags.begin(), segment.flags.end(),
                     [prefix](const std::string& flag) { return flag.starts_with(prefix); });
}

// What re-encryption notes of the states before and after it; no data of its own.
bool is_backup(const Luks2Segment& segment) { return has_flag_like(segment, "backup-"); }

// Numbered from 0 on without a gap, as the specification sorts them.
Result<void> check_segments(const Luks2Metadata& metadata, uint64_t header_bytes,
                            const Refusal& refusal) {
  if (metadata.segments.empty()) return refusal.corrupt("the LUKS2 header has no segment");
  if (is_backup(metadata.segments.front())) {
    return refusal.corrupt("the LUKS2 header has no segment but what re-encryption keeps of one");
  }
  const uint64_t header_end = 2 * header_bytes + metadata.slot_area_bytes;
  uint32_t next_number = 0;
  for (const Luks2Segment& segment : metadata.segments) {
    const std::string subject = "segment " + std::to_string(segment.number);
    const uint64_t size = segment.size.value_or(0);
    if (segment.number != next_number++) {
      return refusal.corrupt("there is " + subject + ", but none of the number before it");
    }
    if (segment.offset % 512 != 0 || size % segment.sector_size != 0) {
      return refusal.corrupt(subject + " does not begin and end with a sector");
    }
    // At 0 it is that of another device, to which this is the detached header.
    if (segment.offset != 0 && segment.offset < header_end) {
      return refusal.corrupt(subject + " begins within the header");
    }
  }
  return {};
}

Result<void> check_references(const Luks2Metadata& metadata, const Refusal& refusal) {
  for (const Luks2Digest& recorded : metadata.digests) {
    const std::string subject = "digest " + std::to_string(recorded.digest.number);
    for (uint32_t number : recorded.slots) {
      if (has_slot(metadata, number)) continue;
      return refusal.corrupt(subject + " names key slot " + std::to_string(number) +
                             ", which is not there");
    }
    for (uint32_t number : recorded.segments) {
      if (has_segment(metadata, number)) continue;
      return refusal.corrupt(subject + " names segment " + std::to_string(number) +
                             ", which is not there");
    }
  }
  for (const Luks2Token& token : metadata.tokens) {
    for (uint32_t number : token.slots) {
      if (has_slot(metadata, number)) continue;
      return refusal.corrupt("token " + std::to_string(token.number) + " names key slot " +
                             std::to_string(number) + ", which is not there");
    }
  }
  return {};
}

// Each key slot and each segment has one digest, or it would not be said which key is right.
Result<void> check_digests(const Luks2Metadata& metadata, const Refusal& refusal) {
  auto count = [&metadata](auto list, uint32_t number) {
    return std::count_if(metadata.digests.begin(), metadata.digests.end(),
                         [&](const Luks2Digest& digest) { return contains(digest.*list, number); });
  };
  for (const Luks2Slot& recorded : metadata.slots) {
    const auto digests = count(&Luks2Digest::slots, recorded.slot.number);
    if (digests == 1 || (digests == 0 && recorded.type != "luks2")) continue;
    return refusal.corrupt(slot_name(recorded) + " belongs to " + std::to_string(digests) +
                           " digests instead of one");
  }
  for (const Luks2Segment& segment : metadata.segments) {
    const auto digests = count(&Luks2Digest::segments, segment.number);
    if (digests == 1 || (digests == 0 && segment.type != "crypt")) continue;
    return refusal.corrupt("segment " + std::to_string(segment.number) + " belongs to " +
                           std::to_string(digests) + " digests instead of one");
  }
  return {};
}

const Luks2Digest* digest_of_segment(const Luks2Metadata& metadata, uint32_t segment) {
  for (const Luks2Digest& digest : metadata.digests) {
    if (contains(digest.segments, segment)) return &digest;
  }
  return nullptr;
}

bool is_reencryption(const std::string& requirement) {
  return requirement.find("reencrypt") != std::string::npos;
}

// Of the one segment there is.
Result<void> check_segment_supported(const Luks2Segment& segment, const Refusal& refusal) {
  const std::string subject = "segment " + std::to_string(segment.number);
  if (segment.type != "crypt") {
    return refusal.unsupported(subject + " is of the type '" + segment.type +
                               "', which is not supported");
  }
  if (segment.has_integrity) {
    return refusal.unsupported("the disk has integrity protection, which is not supported");
  }
  if (!CipherSpec::parse(segment.encryption).ok()) {
    return refusal.unsupported("its cipher '" + segment.encryption + "' is not supported");
  }
  const uint64_t size = segment.size.value_or(0);
  if (segment.offset > kOffsetMax || size > kOffsetMax - segment.offset) {
    return refusal.corrupt(subject + " ends beyond what a file can have");
  }
  return {};
}

constexpr std::string_view kFinishFirst =
    "re-encryption is under way; finish it with 'cryptsetup reencrypt --resume-only' first";

}  // namespace

Result<void> cross_check_luks2(const Luks2Metadata& metadata, uint64_t header_bytes,
                               const Refusal& refusal) {
  RETURN_IF_ERROR(check_areas(metadata, header_bytes, refusal));
  RETURN_IF_ERROR(check_segments(metadata, header_bytes, refusal));
  RETURN_IF_ERROR(check_references(metadata, refusal));
  return check_digests(metadata, refusal);
}

Result<void> check_luks2_supported(const Luks2Metadata& metadata, const Refusal& refusal) {
  const bool is_reencrypting =
      std::any_of(metadata.requirements.begin(), metadata.requirements.end(), &is_reencryption);
  if (is_reencrypting) return refusal.unsupported(std::string(kFinishFirst));
  if (!metadata.requirements.empty()) {
    return refusal.unsupported("the header requires '" + metadata.requirements.front() +
                               "' of whoever opens it, which this program does not have");
  }
  for (const Luks2Slot& recorded : metadata.slots) {
    if (recorded.type == "reencrypt") return refusal.unsupported(std::string(kFinishFirst));
  }
  const Luks2Segment& segment = metadata.segments.front();
  if (metadata.segments.size() != 1) {
    return refusal.unsupported("the header has " + std::to_string(metadata.segments.size()) +
                               " segments; disks of one are supported");
  }
  if (has_flag_like(segment, "in-reencryption")) {
    return refusal.unsupported(std::string(kFinishFirst));
  }
  RETURN_IF_ERROR(check_segment_supported(segment, refusal));
  const Luks2Digest* digest = digest_of_segment(metadata, segment.number);
  CHECK(digest != nullptr);  // every one that is "crypt" has one
  if (digest->is_usable()) return {};
  return refusal.unsupported("the volume's digest is not supported: " + digest->unusable);
}

VolumeFacts facts_of(const Luks2Binary& binary, const Luks2Metadata& metadata) {
  const Luks2Segment& segment = metadata.segments.front();
  const Luks2Digest* digest = digest_of_segment(metadata, segment.number);
  CHECK(digest != nullptr);
  VolumeFacts facts;
  facts.version = 2;
  facts.uuid = binary.uuid;
  Result<CipherSpec> cipher = CipherSpec::parse(segment.encryption);
  facts.cipher = std::move(cipher).value();
  facts.payload_offset = ByteCount(segment.offset);
  if (segment.size) facts.payload_size = ByteCount(*segment.size);
  facts.sector_size = segment.sector_size;
  facts.iv_offset = segment.iv_offset;
  facts.slots_max = kLuks2ObjectsMax;
  facts.allow_discards = std::find(metadata.flags.begin(), metadata.flags.end(),
                                   "allow-discards") != metadata.flags.end();
  facts.digest = digest->digest;
  for (const Luks2Slot& recorded : metadata.slots) {
    const bool is_of_volume = contains(digest->slots, recorded.slot.number);
    if (recorded.is_usable() && is_of_volume) {
      facts.slots.push_back(recorded.slot);
      continue;
    }
    UnusableSlot unusable;
    unusable.number = recorded.slot.number;
    unusable.why = is_of_volume ? recorded.unusable : "its key is not this volume's";
    unusable.is_of_volume = is_of_volume;
    facts.unusable_slots.push_back(std::move(unusable));
  }
  return facts;
}

}  // namespace ringdisk::luks
