// SPDX-License-Identifier: Apache-2.0
// The operations on key slots, put together from the steps of SlotEdit.
#include "luks/keys.h"

#include "luks/slot_edit.h"

namespace ringdisk::luks {
namespace {

Error last_slot(const Refusal& refusal, uint32_t number) {
  return refusal(ErrorKind::kDenied,
                 "key slot " + std::to_string(number) +
                     " is the last one that opens this disk, and nobody could read it any more; "
                     "'--force' removes it all the same");
}

Result<void> check_not_last(const SlotEdit& edit, uint32_t number, bool may_be_last) {
  const VolumeFacts& facts = edit.facts();
  const bool is_last = facts.slots.size() == 1 && facts.slots.front().number == number;
  if (is_last && !may_be_last) return last_slot(edit.refusal(), number);
  return {};
}

Result<uint32_t> choose_number(const SlotEdit& edit, std::optional<uint32_t> asked,
                               bool may_replace = false) {
  const std::string all = std::to_string(edit.facts().slots_max);
  if (!asked) {
    const std::optional<uint32_t> free = edit.first_free();
    if (free) return *free;
    return edit.refusal()(ErrorKind::kNoSpace, "all " + all + " key slots are in use");
  }
  if (*asked >= edit.facts().slots_max) {
    return edit.refusal().invalid("there are key slots 0 to " +
                                  std::to_string(edit.facts().slots_max - 1));
  }
  if (!edit.is_used(*asked)) return *asked;
  if (may_replace && edit.facts().find_slot(*asked)) return *asked;
  return edit.refusal()(ErrorKind::kBusy,
                        "key slot " + std::to_string(*asked) +
                            " is in use; name none, and a free one is taken, or remove it first");
}

// A slot for the volume key, like `model`.
Task<NewSlot> make_key_slot(SlotEdit& edit, uint32_t number, const KeySlot* model,
                            const NewKey& key, Bytes volume_key) {
  KeySlot shape = co_await edit.shape(number, model, volume_key.size());
  KdfChoice choice = key.kdf;
  KdfKind otherwise = KdfKind::kArgon2id;
  if (edit.facts().version == 1) {
    choice.hash = shape.af_hash;
    otherwise = KdfKind::kPbkdf2;
    if (choice.kind.value_or(otherwise) != otherwise) {
      co_return edit.refusal().invalid("LUKS1 has only pbkdf2");
    }
  }
  NewSlot made = co_await make_slot(edit.world(), edit.window(), std::move(shape), choice,
                                    otherwise, key.passphrase, volume_key);
  co_return std::move(made);
}

// Puts a key slot where there was one of that number: LUKS2 switches with one write of the header,
// LUKS1 through a free slot.
Task<void> replace_slot(SlotEdit& edit, uint32_t number, const KeySlot* model, const NewKey& key,
                        Bytes volume_key, std::optional<uint32_t> priority) {
  const bool switches = edit.facts().version == 2;
  uint32_t interim = number;
  if (!switches) interim = co_await choose_number(edit, std::nullopt);
  NewSlot made = co_await make_key_slot(edit, interim, model, key, volume_key);
  if (priority) made.slot.priority = *priority;
  co_await edit.put(made);
  if (switches) co_return;
  co_await edit.remove(number);
  co_await edit.move(interim, number);
}

}  // namespace

Task<uint32_t> add_key(const World& world, HeaderWindow window, Unlock with, NewKey key) {
  SlotEdit edit(world, window);
  co_await edit.begin();
  const uint32_t number = co_await choose_number(edit, key.slot, key.may_replace);
  LuksVolume volume = co_await unlock(world, window, edit.facts(), with);
  const KeySlot* model = volume.key_slot < 0
                             ? nullptr
                             : edit.facts().find_slot(static_cast<uint32_t>(volume.key_slot));
  const Bytes volume_key = std::as_const(volume.key).bytes();
  if (edit.is_used(number)) {
    const std::optional<uint32_t> usual_priority;
    co_await replace_slot(edit, number, model, key, volume_key, usual_priority);
    co_return number;
  }
  NewSlot made = co_await make_key_slot(edit, number, model, key, volume_key);
  co_await edit.put(made);
  co_return number;
}

Task<uint32_t> change_key(const World& world, HeaderWindow window, Unlock with, NewKey key) {
  SlotEdit edit(world, window);
  co_await edit.begin();
  with.volume_key = Bytes();
  LuksVolume volume = co_await unlock(world, window, edit.facts(), with);
  const auto number = static_cast<uint32_t>(volume.key_slot);
  const KeySlot model = *edit.facts().find_slot(number);
  const Bytes volume_key = std::as_const(volume.key).bytes();
  co_await replace_slot(edit, number, &model, key, volume_key, model.priority);
  co_return number;
}

Task<uint32_t> remove_key(const World& world, HeaderWindow window, Unlock with, bool may_be_last) {
  SlotEdit edit(world, window);
  co_await edit.begin();
  with.volume_key = Bytes();
  LuksVolume volume = co_await unlock(world, window, edit.facts(), with);
  const auto number = static_cast<uint32_t>(volume.key_slot);
  co_await check_not_last(edit, number, may_be_last);
  co_await edit.remove(number);
  co_return number;
}

Task<void> kill_slot(const World& world, HeaderWindow window, uint32_t slot,
                     std::optional<Unlock> proof, bool may_be_last) {
  SlotEdit edit(world, window);
  co_await edit.begin();
  const bool is_there = slot < edit.facts().slots_max && edit.is_used(slot);
  if (!is_there) {
    co_await fail(edit.refusal()(ErrorKind::kNotFound,
                                 "key slot " + std::to_string(slot) + " is not in use"));
  }
  co_await check_not_last(edit, slot, may_be_last);
  if (proof) {
    VolumeFacts others = edit.facts();
    std::erase_if(others.slots, [slot](const KeySlot& one) { return one.number == slot; });
    LuksVolume volume = co_await unlock(world, window, others, *proof);
  }
  co_await edit.remove(slot);
}

Task<uint32_t> erase_keys(const World& world, HeaderWindow window) {
  SlotEdit edit(world, window);
  co_await edit.begin();
  const uint32_t removed = co_await edit.remove_all();
  co_return removed;
}

}  // namespace ringdisk::luks
