// SPDX-License-Identifier: Apache-2.0
// What is slow about a new key slot runs on the blocking pool; what writes it, here.
#include "luks/new_slot.h"

#include <algorithm>

#include "crypto/random_bytes.h"
#include "luks/derivation.h"
#include "runtime/blocking_pool.h"

namespace ringdisk::luks {
namespace {

// A key slot being made, with all that this takes.
struct SlotWork {
  const Clock& clock;
  KdfChoice choice;
  KdfKind otherwise;
  Refusal refusal;
  NewSlot made;
  SecretBytes passphrase, key;

  Result<NewSlot> operator()(Blocking) {
    ASSIGN_OR_RETURN(made.slot.kdf,
                     choose_kdf(clock, choice, otherwise, made.slot.area_key_bytes, refusal));
    ASSIGN_OR_RETURN(made.material, seal_material(made.slot, std::as_const(passphrase).bytes(),
                                                  std::as_const(key).bytes()));
    return std::move(made);
  }
};

Result<VolumeDigest> compute_new_digest(Hash hash, size_t digest_bytes, uint32_t iterations,
                                        Bytes key) {
  VolumeDigest digest;
  digest.kdf.hash = hash;
  digest.kdf.iterations = iterations;
  digest.kdf.salt.resize(kSaltBytes);
  digest.digest.resize(digest_bytes);
  RETURN_IF_ERROR(fill_with_secret_random(digest.kdf.salt));
  RETURN_IF_ERROR(compute(digest, key));
  return digest;
}

}  // namespace

Task<NewSlot> make_slot(const World& world, HeaderWindow window, KeySlot shape, KdfChoice choice,
                        KdfKind otherwise, Bytes passphrase, Bytes key) {
  SlotWork work{world.clock, choice, otherwise, window.refusal(world), {}, {}, {}};
  work.made.slot = std::move(shape);
  work.passphrase = co_await SecretBytes::copy_of(passphrase);
  work.key = co_await SecretBytes::copy_of(key);
  NewSlot made = co_await run_derivation(world, choice.stop, std::move(work));
  co_return std::move(made);
}

Task<VolumeDigest> make_digest(const World& world, HeaderWindow, Hash hash, size_t digest_bytes,
                               KdfParameters slot_kdf, Bytes key) {
  const bool is_pbkdf2 = slot_kdf.kind == KdfKind::kPbkdf2;
  const uint32_t sixteenth = is_pbkdf2 ? slot_kdf.iterations / 16 : 0;
  const uint32_t iterations = std::max(sixteenth, kPbkdf2IterationsMin);
  auto work = [&](Blocking) { return compute_new_digest(hash, digest_bytes, iterations, key); };
  VolumeDigest digest = co_await run_blocking(world.blocking, work);
  co_return std::move(digest);
}

Task<void> write_material(const World& world, HeaderWindow window, const NewSlot& made) {
  co_await window.write(world, made.slot.area, made.material.bytes());
  co_await window.flush();
}

Task<void> wipe_area(const World& world, HeaderWindow window, HostRange area) {
  constexpr uint64_t kPieceMax = 1 << 20;
  std::vector<std::byte> noise(std::min(area.length.value(), kPieceMax));
  while (!area.empty()) {
    const MutableBytes piece = MutableBytes(noise).first(
        static_cast<size_t>(std::min<uint64_t>(noise.size(), area.length.value())));
    co_await fill_with_secret_random(piece);
    co_await window.write(world, area.offset, piece);
    area = HostRange::between(area.offset + ByteCount(piece.size()), area.end());
  }
  co_await window.flush();
}

Task<void> wipe_written(const World& world, HeaderWindow window, HostRange range) {
  while (!range.empty()) {
    const StorageExtent extent = co_await window.find_extent(range);
    const HostRange here(range.offset, extent.length);
    if (!extent.zero) co_await wipe_area(world, window, here);
    range = HostRange::between(here.end(), range.end());
  }
}

}  // namespace ringdisk::luks
