// SPDX-License-Identifier: Apache-2.0
// Trying key slots, one after the other.
#include "luks/volume.h"

#include <algorithm>

#include "luks/derivation.h"

namespace ringdisk::luks {
namespace {

// In the order in which they are to be tried: preferred ones first, those left out by their maker
// only when asked for.
std::vector<const KeySlot*> slots_to_try(const VolumeFacts& facts, std::optional<uint32_t> asked) {
  std::vector<const KeySlot*> slots;
  for (const KeySlot& slot : facts.slots) {
    const bool is_wanted = asked ? slot.number == *asked : slot.priority != 0;
    if (is_wanted) slots.push_back(&slot);
  }
  std::stable_sort(slots.begin(), slots.end(), [](const KeySlot* one, const KeySlot* other) {
    return one->priority > other->priority;
  });
  return slots;
}

// A key slot being tried, with all that this takes.
struct SlotTrial {
  KeySlot slot;
  VolumeDigest digest;
  SecretBytes passphrase, material;

  // The volume key where the passphrase opens this slot; empty where it does not. Once.
  Result<SecretBytes> operator()(Blocking) {
    ASSIGN_OR_RETURN(SecretBytes key,
                     open_material(slot, std::as_const(passphrase).bytes(), material.bytes()));
    ASSIGN_OR_RETURN(const bool is_right, matches(digest, key.bytes()));
    if (!is_right) return SecretBytes();
    return key;
  }
};

// A volume key being compared with the digest.
struct KeyTrial {
  VolumeDigest digest;
  SecretBytes key;

  Result<bool> operator()(Blocking) { return matches(digest, std::as_const(key).bytes()); }
};

Task<SecretBytes> open_slot(const World& world, HeaderWindow window, const VolumeFacts& facts,
                            const KeySlot& slot, const Unlock& with) {
  SlotTrial trial;
  trial.slot = slot;
  trial.digest = facts.digest;
  trial.passphrase = co_await SecretBytes::copy_of(with.passphrase);
  trial.material = co_await SecretBytes::make(material_bytes(slot.key_bytes));
  co_await window.read(world, slot.area, trial.material.bytes());
  Result<SecretBytes> key =
      co_await run_derivation(world, with.limits.stop, std::move(trial)).result();
  if (key.ok()) co_return std::move(key);
  const std::string why = "key slot " + std::to_string(slot.number) + " cannot be opened with '" +
                          slot.area_cipher.to_text() + "' and " +
                          std::string(name_of(slot.kdf.kind));
  co_return window.refusal(world).because(key.error(), why);
}

// Of those that might have opened, or of the one asked for.
std::optional<Error> first_unusable(const VolumeFacts& facts, std::optional<uint32_t> asked,
                                    const Refusal& refusal) {
  for (const UnusableSlot& slot : facts.unusable_slots) {
    const bool is_wanted = asked ? slot.number == *asked : slot.is_of_volume;
    if (!is_wanted) continue;
    const std::string number = std::to_string(slot.number);
    if (asked) return refusal.unsupported("key slot " + number + " cannot be opened: " + slot.why);
    return refusal.unsupported("no key slot opens with this passphrase, but key slot " + number +
                               " could not be tried: " + slot.why);
  }
  return std::nullopt;
}

Error no_slot(std::optional<uint32_t> asked, const Refusal& refusal) {
  if (asked) {
    return refusal(ErrorKind::kNotFound, "key slot " + std::to_string(*asked) + " is not in use");
  }
  return refusal(ErrorKind::kDenied, "no key slot is in use; only the volume key opens this");
}

LuksVolume volume_of(const VolumeFacts& facts, SecretBytes key, int slot) {
  LuksVolume volume;
  volume.version = facts.version;
  volume.uuid = facts.uuid;
  volume.cipher = facts.cipher;
  volume.key = std::move(key);
  volume.payload_offset = facts.payload_offset;
  volume.payload_size = facts.payload_size;
  volume.sector_size = facts.sector_size;
  volume.iv_offset = facts.iv_offset;
  volume.allow_discards = facts.allow_discards;
  volume.key_slot = slot;
  return volume;
}

Error wrong_passphrase(const Refusal& refusal) {
  return refusal(ErrorKind::kDenied, "no key slot opens with this passphrase");
}

Task<LuksVolume> unlock_by_key(const World& world, HeaderWindow window, const VolumeFacts& facts,
                               const Unlock& with) {
  const Bytes key = with.volume_key;
  KeyTrial trial;
  trial.digest = facts.digest;
  trial.key = co_await SecretBytes::copy_of(key);
  bool is_right = co_await run_derivation(world, with.limits.stop, std::move(trial));
  if (!is_right) {
    co_return window.refusal(world)(ErrorKind::kDenied, "this is not the key of the volume");
  }
  SecretBytes copy = co_await SecretBytes::copy_of(key);
  co_return volume_of(facts, std::move(copy), -1);
}

Task<LuksVolume> unlock_by_passphrase(const World& world, HeaderWindow window,
                                      const VolumeFacts& facts, Unlock with) {
  const Refusal refusal = window.refusal(world);
  const std::vector<const KeySlot*> slots = slots_to_try(facts, with.slot);
  // One that is too costly, or needs what is not there.
  std::optional<Error> not_tried = first_unusable(facts, with.slot, refusal);
  if (slots.empty() && !not_tried) co_return no_slot(with.slot, refusal);
  for (const KeySlot* slot : slots) {
    const std::string subject = "key slot " + std::to_string(slot->number);
    Result<void> allowed = check_kdf_limits(slot->kdf, with.limits, refusal, subject);
    if (!allowed.ok()) {
      not_tried = allowed.error();
      continue;
    }
    Result<SecretBytes> key = co_await open_slot(world, window, facts, *slot, with).result();
    const bool is_unsupported = !key.ok() && key.error().kind == ErrorKind::kUnsupported;
    if (!key.ok() && !is_unsupported) co_return key.error();
    if (is_unsupported) {
      not_tried = key.error();
    } else if (!key.value().empty()) {
      co_return volume_of(facts, std::move(key).value(), static_cast<int>(slot->number));
    }
  }
  if (not_tried) co_return *not_tried;
  co_return wrong_passphrase(refusal);
}

}  // namespace

Task<LuksVolume> unlock(const World& world, HeaderWindow window, const VolumeFacts& facts,
                        Unlock with) {
  const Refusal refusal = window.refusal(world);
  co_await check_kdf_limits(facts.digest.kdf, with.limits, refusal, "the volume's digest");
  if (!with.volume_key.empty()) {
    LuksVolume volume = co_await unlock_by_key(world, window, facts, with);
    co_return std::move(volume);
  }
  LuksVolume volume = co_await unlock_by_passphrase(world, window, facts, with);
  co_return std::move(volume);
}

Task<LuksVolume> unlock(const World& world, HeaderWindow window, Unlock with) {
  LuksHeader header = co_await read_header(world, window);
  VolumeFacts facts = co_await supported_facts(world, window, header);
  const bool is_overwritten = !check_not_overwritten(world, window, header).ok();
  if (with.repairs_header && !is_overwritten) {
    co_await repair_header(world, window, header);
  } else {
    warn_of_damage(world, window, header);
  }
  LuksVolume volume = co_await unlock(world, window, facts, with);
  co_return std::move(volume);
}

Result<ByteCount> payload_size(const World& world, uint32_t node, const LuksVolume& volume,
                               ByteCount storage_size, bool is_detached) {
  const Refusal refusal(world.diagnostics, node);
  const ByteCount offset = volume.payload_offset;
  if (!is_detached && offset.is_zero()) {
    return refusal.corrupt(
        "this is the header of another file's data; name that file, and this "
        "one as its header");
  }
  const bool is_there = offset < storage_size;
  const ByteCount room = is_there ? storage_size - offset : ByteCount(0);
  const ByteCount size = volume.payload_size.value_or(room);
  if (!is_there || size > room) {
    return refusal.corrupt(
        "the file has " + std::to_string(storage_size.value()) +
        " bytes, but its encrypted data ends at " +
        std::to_string(
            (offset + volume.payload_size.value_or(ByteCount(volume.sector_size))).value()));
  }
  if (size.value() % volume.sector_size != 0) {
    return refusal.corrupt("the file ends within a sector of its encrypted data; sectors have " +
                           std::to_string(volume.sector_size) + " bytes");
  }
  return size;
}

}  // namespace ringdisk::luks
