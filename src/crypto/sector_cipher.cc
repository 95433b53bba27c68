// SPDX-License-Identifier: Apache-2.0
// Which implementation a cipher gets.
#include "crypto/sector_cipher.h"

#include <bit>

#include "base/check.h"
#include "crypto/openssl_cipher.h"
#include "crypto/secret.h"
#include "crypto/xts_cipher.h"

namespace ringdisk {

bool is_sector_size(uint64_t size) {
  return std::has_single_bit(size) && size >= kSectorSizeMin && size <= kSectorSizeMax;
}

void SectorCipher::check_request(uint64_t first, Bytes source, MutableBytes target) const {
  CHECK_EQ(source.size(), target.size());
  CHECK_EQ(source.size() % sector_size_, size_t{0});
  CHECK_EQ(first % (sector_size_ / kSectorNumberBytes), uint64_t{0});
}

Result<std::unique_ptr<SectorCipher>> make_sector_cipher(const CipherSpec& spec, Bytes key,
                                                         uint32_t sector_size,
                                                         CpuFeatures features) {
  if (!is_sector_size(sector_size)) return Error::of(ErrorKind::kInvalid, "choose cipher");
  const bool is_halved = spec.mode == "xts" && !key.empty() && key.size() % 2 == 0;
  if (is_halved && equal_in_constant_time(key.first(key.size() / 2), key.subspan(key.size() / 2))) {
    return Error::of(ErrorKind::kInvalid, "choose cipher");
  }
  if (crypto_internal::has_xts_kernel(spec, key.size(), features)) {
    return crypto_internal::make_xts_cipher(spec, key, sector_size, features);
  }
  return crypto_internal::make_openssl_cipher(spec, key, sector_size);
}

bool is_cipher_available(const CipherSpec& spec, size_t key_bytes) {
  return crypto_internal::has_openssl_cipher(spec, key_bytes);
}

}  // namespace ringdisk
