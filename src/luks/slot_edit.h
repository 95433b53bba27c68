// SPDX-License-Identifier: Apache-2.0
// SlotEdit: one change of key slots under way: the header as it was read, and the steps by which
// either version of it changes. Each step is durable when it is done. Lives for one call of
// luks/keys.h, on its shard.
#pragma once

#include "luks/new_slot.h"
#include "luks/volume.h"

namespace ringdisk::luks {

class SlotEdit {
 public:
  SlotEdit(const World& world, HeaderWindow window) : world_(world), window_(window) {}

  // Reads and repairs the header. First of all.
  Task<void> begin();

  const VolumeFacts& facts() const { return facts_; }
  // In use by a slot of any kind.
  bool is_used(uint32_t number) const;
  std::optional<uint32_t> first_free() const;

  // Number, ciphers, sizes and place of a slot for a key of `key_bytes`, like `model` (null: like
  // the first one, or else the volume). kNoSpace: there is no place for its material.
  Result<KeySlot> shape(uint32_t number, const KeySlot* model, size_t key_bytes) const;

  // Adds the slot, or, LUKS2 only, puts it in the place of the one with its number.
  Task<void> put(const NewSlot& made);
  // Takes it away, then wipes its material.
  Task<void> remove(uint32_t number);
  // Takes all away at once, also those of other keys and of other types, then overwrites all places
  // of material that were ever written to. Gives how many there were.
  Task<uint32_t> remove_all();
  // LUKS1: the slot `from` gets the number `to`, which is free. It opens at every moment.
  Task<void> move(uint32_t from, uint32_t to);

  Refusal refusal() const { return window_.refusal(world_); }
  const World& world() const { return world_; }
  HeaderWindow window() const { return window_; }

 private:
  Task<void> put_luks1(const NewSlot& made);
  Task<void> put_luks2(const NewSlot& made);
  Task<void> remove_luks1(uint32_t number);
  Task<void> remove_luks2(uint32_t number);
  Task<void> wipe_from(HostOffset begin);
  // Makes slot `number` count, which a crash half-way leaves free.
  Task<void> enable_luks1(uint32_t number, Luks1Slot slot);

  const World& world_;
  const HeaderWindow window_;
  LuksHeader header_;
  VolumeFacts facts_;
};

}  // namespace ringdisk::luks
