// SPDX-License-Identifier: Apache-2.0
// Keys and order are qemu-img's.
#include "luks/describe.h"

#include "luks/create_options.h"

namespace ringdisk::luks {
namespace {

DescribedField empty_slot(bool is_active) {
  DescribedField field;
  field.kind = DescribedField::Kind::kObject;
  field.children.push_back(bool_field("active", is_active));
  return field;
}

std::vector<DescribedField> cipher_fields(const CipherSpec& cipher, size_t key_bytes,
                                          bool is_detached, std::string_view hash,
                                          const std::string& uuid) {
  std::vector<DescribedField> fields;
  fields.push_back(text_field("ivgen-alg", cipher.iv));
  if (cipher.iv == "essiv") fields.push_back(text_field("ivgen-hash-alg", cipher.iv_hash));
  fields.push_back(bool_field("detached-header", is_detached));
  if (!hash.empty()) fields.push_back(text_field("hash-alg", std::string(hash)));
  fields.push_back(text_field("cipher-alg", qemu_cipher_name(cipher, key_bytes)));
  fields.push_back(text_field("uuid", uuid));
  fields.push_back(text_field("cipher-mode", cipher.mode));
  return fields;
}

DescribedField luks1_slots(const Luks1Header& header) {
  DescribedField slots;
  slots.key = "slots";
  slots.kind = DescribedField::Kind::kList;
  for (const Luks1Slot& slot : header.slots) {
    DescribedField field = empty_slot(slot.is_active);
    if (slot.is_active) field.children.push_back(number_field("iters", slot.iterations));
    field.children.push_back(
        number_field("key-offset", uint64_t{slot.material_sector} * kMaterialSectorBytes));
    if (slot.is_active) field.children.push_back(number_field("stripes", kStripes));
    slots.children.push_back(std::move(field));
  }
  return slots;
}

DescribedVolume describe_luks1(const Luks1Header& header) {
  DescribedVolume described;
  described.payload_offset = ByteCount(uint64_t{header.payload_sector} * kMaterialSectorBytes);
  described.fields = cipher_fields(header.cipher, header.key_bytes, header.payload_sector == 0,
                                   name_of(header.hash), header.uuid);
  described.fields.push_back(luks1_slots(header));
  described.fields.push_back(number_field("payload-offset", described.payload_offset.value()));
  described.fields.push_back(number_field("master-key-iters", header.digest_iterations));
  return described;
}

DescribedField luks2_slots(const Luks2Metadata& metadata) {
  DescribedField slots;
  slots.key = "slots";
  slots.kind = DescribedField::Kind::kList;
  for (const Luks2Slot& one : metadata.slots) {
    DescribedField field = empty_slot(true);
    field.children.push_back(number_field("keyslot", one.slot.number));
    if (one.is_usable()) {
      const KdfParameters& kdf = one.slot.kdf;
      field.children.push_back(text_field("pbkdf", std::string(name_of(kdf.kind))));
      field.children.push_back(number_field("iters", kdf.iterations));
      if (kdf.kind != KdfKind::kPbkdf2) {
        field.children.push_back(number_field("memory", kdf.memory_kib));
        field.children.push_back(number_field("parallel", kdf.lanes));
      }
    } else {
      field.children.push_back(text_field("type", one.type));
      field.children.push_back(text_field("unusable", one.unusable));
    }
    field.children.push_back(number_field("key-offset", one.slot.area.value()));
    slots.children.push_back(std::move(field));
  }
  return slots;
}

// Of a volume that this program does not support only what says so.
DescribedVolume describe_luks2(const Luks2Header& header, const Result<VolumeFacts>& facts) {
  DescribedVolume described;
  described.payload_offset = ByteCount(header.metadata.segments.front().offset);
  if (facts.ok()) {
    const VolumeFacts& volume = facts.value();
    described.payload_size = volume.payload_size;
    const size_t key_bytes = volume.slots.empty() ? 0 : volume.slots.front().key_bytes;
    described.fields =
        cipher_fields(volume.cipher, key_bytes, volume.payload_offset.is_zero(), "", volume.uuid);
    described.fields.push_back(number_field("sector-size", volume.sector_size));
  } else {
    described.fields.push_back(text_field("uuid", header.binary.uuid));
  }
  described.fields.push_back(number_field("version", 2));
  if (!header.binary.label.empty()) {
    described.fields.push_back(text_field("label", header.binary.label));
  }
  described.fields.push_back(luks2_slots(header.metadata));
  described.fields.push_back(number_field("payload-offset", described.payload_offset.value()));
  if (header.bad_copy) described.fields.push_back(text_field("damage", damage_of(header)));
  return described;
}

}  // namespace

Task<DescribedVolume> describe_volume(const World& world, HeaderWindow window) {
  const LuksHeader header = co_await read_header(world, window);
  if (header.luks1) co_return describe_luks1(*header.luks1);
  co_return describe_luks2(*header.luks2, supported_facts(world, window, header));
}

}  // namespace ringdisk::luks
