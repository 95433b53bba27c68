// SPDX-License-Identifier: Apache-2.0
// OpenSSL's generator for private values, in pieces that its int can count.
#include "crypto/random_bytes.h"

#include <openssl/err.h>
#include <openssl/rand.h>

#include <algorithm>

namespace ringdisk {

Result<void> fill_with_secret_random(MutableBytes target) {
  constexpr size_t kPieceMax = size_t{1} << 20;
  while (!target.empty()) {
    const MutableBytes piece = target.first(std::min(target.size(), kPieceMax));
    // why: OpenSSL takes unsigned char, our spans hold std::byte
    auto* out = reinterpret_cast<unsigned char*>(piece.data());
    if (RAND_priv_bytes(out, static_cast<int>(piece.size())) != 1) {
      ERR_clear_error();
      return Error::of(ErrorKind::kIo, "make random bytes");
    }
    target = target.subspan(piece.size());
  }
  return {};
}

}  // namespace ringdisk
