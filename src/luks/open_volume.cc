// SPDX-License-Identifier: Apache-2.0
// The passphrase lives as long as its table, the volume key no longer than this.
#include "luks/open_volume.h"

#include "base/diagnostics.h"
#include "runtime/world.h"

namespace ringdisk::luks {

Task<OpenVolume> open_volume(Graph& graph, HeaderWindow window, std::string secret_id,
                             std::string image, CpuFeatures features, bool repairs_header) {
  const World& world = graph.world();
  // A header that nobody can open asks nobody for a passphrase.
  const LuksHeader header = co_await read_header(world, window);
  co_await supported_facts(world, window, header);
  SecretWish wish;
  wish.id = std::move(secret_id);
  wish.image = std::move(image);
  const SharedSecret secret = co_await graph.find_secret(std::move(wish));
  Unlock with;
  with.passphrase = secret->bytes();
  with.repairs_header = repairs_header;
  OpenVolume opened;
  opened.volume = co_await unlock(world, window, with);
  const LuksVolume& volume = opened.volume;
  Result<std::unique_ptr<SectorCipher>> cipher =
      make_sector_cipher(volume.cipher, volume.key.bytes(), volume.sector_size, features);
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
