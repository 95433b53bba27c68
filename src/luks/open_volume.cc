// SPDX-License-Identifier: Apache-2.0
// The passphrase lives as long as its table, the volume key no longer than this.
#include "luks/open_volume.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "runtime/world.h"

namespace ringdisk::luks {
namespace {

// Of the lengths that the header's key slots say the key has. A header without any is not judged.
Result<void> check_payload_cipher(const VolumeFacts& facts, const Refusal& refusal) {
  auto fits = [&facts](const KeySlot& slot) {
    return is_cipher_available(facts.cipher, slot.key_bytes);
  };
  if (facts.slots.empty() || std::ranges::any_of(facts.slots, fits)) return {};
  return refusal.unsupported("its cipher '" + facts.cipher.to_text() + "' is not supported");
}

}  // namespace

Task<OpenVolume> open_volume(Graph& graph, HeaderWindow window, VolumeOpening opening) {
  const World& world = graph.world();
  // A header that nobody can open asks nobody for a passphrase.
  const LuksHeader header = co_await read_header(world, window);
  const VolumeFacts facts = co_await supported_facts(world, window, header);
  co_await check_payload_cipher(facts, window.refusal(world));
  SecretWish wish;
  wish.id = std::move(opening.secret_id);
  wish.image = std::move(opening.image);
  wish.option = std::move(opening.option);
  const SharedSecret secret = co_await graph.find_secret(std::move(wish));
  Unlock with;
  with.passphrase = secret->bytes();
  with.limits = opening.settings.kdf_limits;
  with.repairs_header = opening.repairs_header;
  OpenVolume opened;
  opened.volume = co_await unlock(world, window, with);
  const LuksVolume& volume = opened.volume;
  Result<std::unique_ptr<SectorCipher>> cipher = make_sector_cipher(
      volume.cipher, volume.key.bytes(), volume.sector_size, opening.settings.features);
  if (!cipher.ok()) {
    co_return window.refusal(world).because(
        cipher.error(), "its cipher '" + volume.cipher.to_text() + "' is not supported");
  }
  opened.cipher = std::move(cipher).value();
  opened.volume.key = SecretBytes();
  co_return std::move(opened);
}

LuksViewOptions view_options(const World& world, const OpenVolume& opened) {
  LuksViewOptions options;
  options.cipher = opened.cipher;
  options.shards = world.shards;
  options.ns_per_byte = measure_cipher(*opened.cipher, world.clock);
  return options;
}

}  // namespace ringdisk::luks
