// SPDX-License-Identifier: Apache-2.0
// Splitting and merging share the walk over all stripes but the last.
#include "crypto/anti_forensic.h"

#include <algorithm>
#include <array>

#include "base/endian.h"
#include "crypto/random_bytes.h"
#include "crypto/secret.h"

namespace ringdisk {
namespace {

void xor_into(Bytes source, MutableBytes target) {
  for (size_t i = 0; i < target.size(); ++i) target[i] ^= source[i];
}

// Each digest-sized piece of `block`, the last one shorter, is replaced by as many bytes of the
// digest of its number and itself.
Result<void> diffuse(Hash hash, MutableBytes block) {
  const size_t piece_bytes = digest_size(hash);
  uint32_t number = 0;
  for (size_t at = 0; at < block.size(); at += piece_bytes, ++number) {
    const MutableBytes piece = block.subspan(at, std::min(piece_bytes, block.size() - at));
    std::array<std::byte, 4> counter;
    store_be32(counter.data(), number);
    RETURN_IF_ERROR(compute_digest(hash, {Bytes(counter), Bytes(piece)}, piece));
  }
  return {};
}

// What all stripes but the last make of `block`, which is zeros.
Result<void> mix_all_but_last(Hash hash, Bytes material, MutableBytes block) {
  for (size_t at = 0; at + block.size() < material.size(); at += block.size()) {
    xor_into(material.subspan(at, block.size()), block);
    RETURN_IF_ERROR(diffuse(hash, block));
  }
  return {};
}

}  // namespace

Result<void> af_split(Hash hash, Bytes key, uint32_t stripes, MutableBytes material) {
  CHECK_GE(stripes, 1u);
  CHECK_EQ(material.size(), key.size() * stripes);
  const MutableBytes last = material.last(key.size());
  RETURN_IF_ERROR(fill_with_secret_random(material.first(material.size() - key.size())));
  fill_zero(last);
  RETURN_IF_ERROR(mix_all_but_last(hash, material, last));
  xor_into(key, last);
  return {};
}

Result<void> af_merge(Hash hash, Bytes material, uint32_t stripes, MutableBytes key) {
  CHECK_GE(stripes, 1u);
  CHECK_EQ(material.size(), key.size() * stripes);
  fill_zero(key);
  RETURN_IF_ERROR(mix_all_but_last(hash, material, key));
  xor_into(material.last(key.size()), key);
  return {};
}

}  // namespace ringdisk
