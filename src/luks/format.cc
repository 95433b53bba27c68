// SPDX-License-Identifier: Apache-2.0
// Writing a new header, in the order that format.h promises.
#include "luks/format.h"

#include <algorithm>

#include "crypto/random_bytes.h"
#include "luks/invalidate.h"
#include "luks/luks2_document.h"
#include "luks/new_slot.h"

namespace ringdisk::luks {
namespace {

constexpr uint64_t kSectorBytes = 512;

Task<SecretBytes> volume_key_of(const FormatRequest& request) {
  if (!request.volume_key.empty()) {
    co_return SecretBytes::copy_of(request.volume_key);
  }
  SecretBytes key = co_await SecretBytes::make(request.key_bytes);
  co_await fill_with_secret_random(key.bytes());
  co_return std::move(key);
}

KeySlot shape_of(const FormatRequest& request, HostOffset area, ByteCount area_size) {
  KeySlot slot;
  slot.number = request.slot;
  slot.area_cipher = request.cipher;
  slot.area_key_bytes = slot.key_bytes = request.key_bytes;
  slot.af_hash = request.hash;
  slot.area = area;
  slot.area_size = area_size;
  return slot;
}

// The second sector, with the last key slots, is durable before the first makes it a header.
Task<void> write_new_luks1(const World& world, HeaderWindow window, const Luks1Header& header) {
  std::vector<std::byte> bytes(2 * kSectorBytes);
  const std::array<std::byte, kLuks1HeaderBytes> encoded = encode_luks1_header(header);
  copy_bytes(encoded, MutableBytes(bytes).first(encoded.size()));
  const Bytes all(bytes);
  co_await window.write(world, HostOffset(kSectorBytes), all.subspan(kSectorBytes));
  co_await window.flush();
  co_await window.write(world, HostOffset(0), all.first(kSectorBytes));
  co_await window.flush();
}

Luks1Header luks1_header_of(const FormatRequest& request, const FormatPlaces& places) {
  Luks1Header header;
  header.cipher = request.cipher;
  header.hash = request.hash;
  header.payload_sector =
      static_cast<uint32_t>(places.payload_offset.value() / kMaterialSectorBytes);
  header.key_bytes = static_cast<uint32_t>(request.key_bytes);
  header.uuid = request.uuid;
  for (uint32_t i = 0; i < kLuks1Slots; ++i) {
    header.slots[i].material_sector = luks1_material_sector(i, header.key_bytes);
  }
  return header;
}

// Key material of an earlier header goes; what was never written stays so. The front, which the new
// header covers, has been invalidated.
Task<void> wipe_material(const World& world, HeaderWindow window, ByteCount header_end) {
  const HostOffset begin(kLuks2BinaryBytes), end(header_end.value());
  co_await wipe_written(world, window, HostRange::between(begin, end));
}

// Room for the whole header, and zeros where the next key slots will lie, in a storage that is
// shorter.
Task<void> make_room(const World& world, HeaderWindow window, ByteCount header_end) {
  const ByteCount there = window.size();
  if (there >= header_end) co_return;
  if (!window.storage().limits().grows) {
    co_await fail(window.refusal(world)(
        ErrorKind::kNoSpace, "a LUKS header like this needs " + std::to_string(header_end.value()) +
                                 " bytes; there are " + std::to_string(there.value())));
  }
  const HostOffset begin(there.value()), end(header_end.value());
  co_await window.write_zeroes(world, HostRange::between(begin, end));
}

// From here on there is no header, until the new one is whole. Last of what comes before: what is
// refused, for whatever reason, costs nobody the header that is there.
Task<void> clear_place(const World& world, HeaderWindow window, ByteCount header_end) {
  co_await make_room(world, window, header_end);
  co_await invalidate_header(world, window);
  co_await wipe_material(world, window, header_end);
}

Task<LuksHeader> write_luks1(const World& world, HeaderWindow window, const FormatRequest& request,
                             const FormatPlaces& places, Bytes key) {
  Luks1Header header = luks1_header_of(request, places);
  Luks1Slot& recorded = header.slots[request.slot];
  const HostOffset area(uint64_t{recorded.material_sector} * kMaterialSectorBytes);
  KeySlot shape = shape_of(request, area, ByteCount(material_bytes(request.key_bytes)));
  KdfChoice choice = request.kdf;
  choice.hash = request.hash;
  NewSlot made = co_await make_slot(world, window, std::move(shape), choice, KdfKind::kPbkdf2,
                                    request.passphrase, key);
  VolumeDigest digest =
      co_await make_digest(world, window, request.hash, kLuks1DigestBytes, made.slot.kdf, key);
  recorded.is_active = true;
  recorded.iterations = made.slot.kdf.iterations;
  copy_bytes(made.slot.kdf.salt, recorded.salt);
  copy_bytes(digest.digest, header.digest);
  copy_bytes(digest.kdf.salt, header.digest_salt);
  header.digest_iterations = digest.kdf.iterations;
  co_await clear_place(world, window, places.header_end);
  co_await write_material(world, window, made);
  co_await write_new_luks1(world, window, header);
  LuksHeader written;
  written.luks1 = std::move(header);
  co_return std::move(written);
}

VolumeFacts luks2_facts_of(const FormatRequest& request, const FormatPlaces& places,
                           VolumeDigest digest) {
  VolumeFacts facts;
  facts.version = 2;
  facts.cipher = request.cipher;
  facts.payload_offset = places.payload_offset;
  facts.sector_size = request.sector_size;
  facts.digest = std::move(digest);
  return facts;
}

Task<LuksHeader> write_luks2(const World& world, HeaderWindow window, const FormatRequest& request,
                             const FormatPlaces& places, Bytes key) {
  Luks2Header header;
  header.binary.header_bytes = request.luks2_header_bytes;
  header.binary.label = request.label;
  header.binary.subsystem = request.subsystem;
  header.binary.uuid = request.uuid;
  co_await fill_with_secret_random(header.salts[0]);
  co_await fill_with_secret_random(header.salts[1]);
  const HostOffset area(2 * request.luks2_header_bytes);
  const uint64_t area_bytes =
      HostOffset(material_bytes(request.key_bytes)).align_up(kLuks2AreaAlignment).value();
  KeySlot shape = shape_of(request, area, ByteCount(area_bytes));
  NewSlot made = co_await make_slot(world, window, std::move(shape), request.kdf,
                                    KdfKind::kArgon2id, request.passphrase, key);
  VolumeDigest digest = co_await make_digest(world, window, request.hash, digest_size(request.hash),
                                             made.slot.kdf, key);
  header.json = new_luks2_document(luks2_facts_of(request, places, std::move(digest)),
                                   request.luks2_header_bytes, places.slot_area_bytes);
  put_key_slot(header.json, made.slot, 0);
  co_await clear_place(world, window, places.header_end);
  co_await write_material(world, window, made);
  co_await write_luks2_header(world, window, header);
  LuksHeader written;
  written.luks2 = std::move(header);
  co_return std::move(written);
}

}  // namespace

Task<LuksVolume> format_luks(const World& world, HeaderWindow window, FormatRequest request) {
  const FormatPlaces places = co_await plan_format(request, window.refusal(world));
  if (request.uuid.empty()) request.uuid = co_await make_uuid();
  SecretBytes key = co_await volume_key_of(request);
  const Bytes key_bytes = std::as_const(key).bytes();
  LuksHeader header;
  if (request.version == 1) {
    header = co_await write_luks1(world, window, request, places, key_bytes);
  } else {
    header = co_await write_luks2(world, window, request, places, key_bytes);
  }
  const VolumeFacts facts = co_await supported_facts(world, window, header);
  Unlock with;
  with.volume_key = key_bytes;
  LuksVolume volume = co_await unlock(world, window, facts, with);
  volume.key_slot = static_cast<int>(request.slot);
  co_return std::move(volume);
}

}  // namespace ringdisk::luks
