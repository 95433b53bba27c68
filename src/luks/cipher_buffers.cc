// SPDX-License-Identifier: Apache-2.0
// The walk over pieces.
#include "luks/cipher_buffers.h"

#include <algorithm>
#include <array>

#include "base/check.h"

namespace ringdisk::luks {
namespace {

// How much of `buffers` its first piece holds.
template <class Buffers>
size_t first_piece(const Buffers& buffers) {
  size_t length = 0;
  bool is_first = true;
  buffers.for_each([&](auto piece) {
    if (is_first) length = piece.size();
    is_first = false;
  });
  return length;
}

Result<void> decrypt_across(const SectorCipher& cipher, uint64_t first, MutableBuffers sector) {
  std::array<std::byte, kSectorSizeMax> memory;
  const MutableBytes whole = MutableBytes(memory).first(sector.size());
  copy_from_buffers(sector, whole);
  RETURN_IF_ERROR(cipher.decrypt(first, whole, whole));
  copy_to_buffers(whole, sector);
  return {};
}

}  // namespace

Result<void> decrypt_in_place(const SectorCipher& cipher, uint64_t first, MutableBuffers target) {
  const size_t sector = cipher.sector_size();
  CHECK_EQ(target.size() % sector, size_t{0});
  if (target.is_single()) [[likely]] {
    return cipher.decrypt(first, target.single(), target.single());
  }
  for (size_t done = 0; done < target.size();) {
    const MutableBuffers rest = target.slice(done, target.size() - done);
    const size_t whole = first_piece(rest) / sector * sector;
    const uint64_t number = first + done / kSectorNumberBytes;
    if (whole == 0) {
      RETURN_IF_ERROR(decrypt_across(cipher, number, rest.slice(0, sector)));
      done += sector;
    } else {
      const MutableBytes piece = rest.slice(0, whole).single();
      RETURN_IF_ERROR(cipher.decrypt(number, piece, piece));
      done += whole;
    }
  }
  return {};
}

Result<void> encrypt_into(const SectorCipher& cipher, uint64_t first, ConstBuffers source,
                          MutableBytes target) {
  const size_t sector = cipher.sector_size();
  CHECK_EQ(source.size() % sector, size_t{0});
  CHECK_EQ(source.size(), target.size());
  if (source.is_single()) [[likely]]
    return cipher.encrypt(first, source.single(), target);
  for (size_t done = 0; done < source.size();) {
    const ConstBuffers rest = source.slice(done, source.size() - done);
    const size_t whole = first_piece(rest) / sector * sector;
    const size_t length = std::max(whole, sector);
    const MutableBytes part = target.subspan(done, length);
    const uint64_t number = first + done / kSectorNumberBytes;
    if (whole == 0) {
      copy_from_buffers(rest.slice(0, sector), part);
      RETURN_IF_ERROR(cipher.encrypt(number, part, part));
    } else {
      RETURN_IF_ERROR(cipher.encrypt(number, rest.slice(0, whole).single(), part));
    }
    done += length;
  }
  return {};
}

}  // namespace ringdisk::luks
