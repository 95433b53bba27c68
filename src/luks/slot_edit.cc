// SPDX-License-Identifier: Apache-2.0
// The steps of both versions. LUKS1 has one header, of which a crash may leave either sector as it
// was; LUKS2 has two, of which one is always right.
#include "luks/slot_edit.h"

#include "luks/backup.h"
#include "luks/luks2_document.h"

namespace ringdisk::luks {

Task<void> SlotEdit::begin() {
  LuksHeader header = co_await read_header(world_, window_);
  header_ = std::move(header);
  VolumeFacts facts = co_await ready_for_change(world_, window_, header_);
  facts_ = std::move(facts);
}

bool SlotEdit::is_used(uint32_t number) const {
  if (header_.luks1) {
    const Luks1Slot& slot = header_.luks1->slots[number];
    return slot.is_active || slot.odd_state;
  }
  for (const Luks2Slot& recorded : header_.luks2->metadata.slots) {
    if (recorded.slot.number == number) return true;
  }
  return false;
}

std::optional<uint32_t> SlotEdit::first_free() const {
  for (uint32_t number = 0; number < facts_.slots_max; ++number) {
    if (!is_used(number)) return number;
  }
  return std::nullopt;
}

Result<KeySlot> SlotEdit::shape(uint32_t number, const KeySlot* model, size_t key_bytes) const {
  if (model == nullptr && !facts_.slots.empty()) model = &facts_.slots.front();
  KeySlot shape;
  shape.number = number;
  shape.area_cipher = model ? model->area_cipher : facts_.cipher;
  shape.area_key_bytes = model ? model->area_key_bytes : key_bytes;
  shape.key_bytes = key_bytes;
  shape.af_hash = model ? model->af_hash : Hash::kSha256;
  if (header_.luks1) {
    shape.af_hash = header_.luks1->hash;
    shape.area =
        HostOffset(uint64_t{header_.luks1->slots[number].material_sector} * kMaterialSectorBytes);
    shape.area_size = ByteCount(material_bytes(shape.key_bytes));
    return shape;
  }
  const uint64_t bytes =
      HostOffset(material_bytes(shape.key_bytes)).align_up(kLuks2AreaAlignment).value();
  const std::optional<HostOffset> area =
      find_free_area(header_.luks2->metadata, header_.luks2->binary.header_bytes, bytes);
  if (!area) {
    return refusal()(ErrorKind::kNoSpace,
                     "the header has no room for another key slot; remove one first");
  }
  shape.area = *area;
  shape.area_size = ByteCount(bytes);
  return shape;
}

Task<void> SlotEdit::put(const NewSlot& made) {
  co_await write_material(world_, window_, made);
  if (header_.luks1) {
    co_await put_luks1(made);
  } else {
    co_await put_luks2(made);
  }
  VolumeFacts facts = co_await supported_facts(world_, window_, header_);
  facts_ = std::move(facts);
}

Task<void> SlotEdit::put_luks1(const NewSlot& made) {
  Luks1Slot slot = header_.luks1->slots[made.slot.number];
  slot.iterations = made.slot.kdf.iterations;
  copy_bytes(made.slot.kdf.salt, slot.salt);
  co_await enable_luks1(made.slot.number, slot);
}

Task<void> SlotEdit::enable_luks1(uint32_t number, Luks1Slot slot) {
  Luks1Header& header = *header_.luks1;
  slot.is_active = false;
  header.slots[number] = slot;
  co_await write_luks1_header(world_, window_, header);
  header.slots[number].is_active = true;
  co_await write_luks1_header(world_, window_, header);
}

Task<void> SlotEdit::put_luks2(const NewSlot& made) {
  Luks2Header& header = *header_.luks2;
  const KeySlot* old = facts_.find_slot(made.slot.number);
  const HostRange old_area = old ? HostRange(old->area, old->area_size) : HostRange();
  put_key_slot(header.json, made.slot, facts_.digest.number);
  co_await write_luks2_header(world_, window_, header);
  if (!old_area.empty()) co_await wipe_area(world_, window_, old_area);
}

Task<void> SlotEdit::remove(uint32_t number) {
  if (header_.luks1) {
    co_await remove_luks1(number);
  } else {
    co_await remove_luks2(number);
  }
  VolumeFacts facts = co_await supported_facts(world_, window_, header_);
  facts_ = std::move(facts);
}

Task<void> SlotEdit::remove_luks1(uint32_t number) {
  Luks1Header& header = *header_.luks1;
  Luks1Slot& slot = header.slots[number];
  const HostRange area(HostOffset(uint64_t{slot.material_sector} * kMaterialSectorBytes),
                       ByteCount(material_bytes(header.key_bytes)));
  slot.is_active = false;
  slot.odd_state.reset();
  co_await write_luks1_header(world_, window_, header);
  co_await wipe_area(world_, window_, area);
  slot.iterations = 0;
  slot.salt = {};
  co_await write_luks1_header(world_, window_, header);
}

Task<void> SlotEdit::remove_luks2(uint32_t number) {
  Luks2Header& header = *header_.luks2;
  HostRange area;
  for (const Luks2Slot& recorded : header.metadata.slots) {
    if (recorded.slot.number != number) continue;
    area = HostRange(recorded.slot.area, recorded.slot.area_size);
  }
  remove_key_slot(header.json, number);
  co_await write_luks2_header(world_, window_, header);
  co_await wipe_area(world_, window_, area);
}

Task<uint32_t> SlotEdit::remove_all() {
  uint32_t removed = 0;
  for (uint32_t number = 0; number < facts_.slots_max; ++number) {
    if (!is_used(number)) continue;
    ++removed;
    if (header_.luks2) remove_key_slot(header_.luks2->json, number);
  }
  if (header_.luks2) {
    co_await write_luks2_header(world_, window_, *header_.luks2);
    const HostOffset areas(2 * header_.luks2->binary.header_bytes);
    co_await wipe_from(areas);
    co_return removed;
  }
  for (Luks1Slot& slot : header_.luks1->slots) {
    slot.is_active = false;
    slot.odd_state.reset();
  }
  co_await write_luks1_header(world_, window_, *header_.luks1);
  const HostOffset areas(kLuks1AreasBegin);
  co_await wipe_from(areas);
  for (Luks1Slot& slot : header_.luks1->slots) {
    slot.iterations = 0;
    slot.salt = {};
  }
  co_await write_luks1_header(world_, window_, *header_.luks1);
  co_return removed;
}

// To the header's end; the areas of slots that were removed before as well, and what a crash left
// of such a removal.
Task<void> SlotEdit::wipe_from(HostOffset begin) {
  const uint64_t end = std::min(header_extent(header_).value(), window_.size().value());
  if (end <= begin.value()) co_return;
  co_await wipe_written(world_, window_, HostRange::between(begin, HostOffset(end)));
}

Task<void> SlotEdit::move(uint32_t from, uint32_t to) {
  Luks1Header& header = *header_.luks1;
  const size_t bytes = material_bytes(header.key_bytes);
  const Luks1Slot source = header.slots[from];
  Luks1Slot target = source;
  target.material_sector = header.slots[to].material_sector;
  // What lies in the area is enciphered; the same bytes open with the same salt anywhere.
  std::vector<std::byte> material(bytes);
  const HostOffset source_at(uint64_t{source.material_sector} * kMaterialSectorBytes);
  const HostOffset target_at(uint64_t{target.material_sector} * kMaterialSectorBytes);
  co_await window_.read(world_, source_at, material);
  co_await window_.write(world_, target_at, material);
  co_await window_.flush();
  co_await enable_luks1(to, target);
  co_await remove(from);
}

}  // namespace ringdisk::luks
