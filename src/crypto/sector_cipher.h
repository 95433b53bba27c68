// SPDX-License-Identifier: Apache-2.0
// SectorCipher: enciphers whole sectors of a disk under one key, as dm-crypt does. Made once when
// an encrypted image is opened, shared by all its queues: const methods, any thread, nothing
// allocated and no lock taken on the fast path.
//
//   ASSIGN_OR_RETURN(auto cipher, make_sector_cipher(spec, key, 512, features));
//   RETURN_IF_ERROR(cipher->decrypt(offset / 512, memory, memory));       // many sectors, in place
//
// AES-XTS with plain or plain64 runs on our own kernels where the machine has AES instructions
// (crypto/xts_kernel.h); everything else, and every other machine, on OpenSSL. Our key schedules
// live in SecretBytes; OpenSSL keeps its own and wipes them.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "crypto/cipher_spec.h"
#include "crypto/cpu_features.h"

namespace ringdisk {

inline constexpr uint32_t kSectorSizeMin = 512;
inline constexpr uint32_t kSectorSizeMax = 4096;
// What `first` of encrypt() and decrypt() counts, whatever the sector's size.
inline constexpr uint32_t kSectorNumberBytes = 512;

// 512, 1024, 2048 or 4096.
bool is_sector_size(uint64_t size);

class SectorCipher {
 public:
  virtual ~SectorCipher() = default;
  SectorCipher(const SectorCipher&) = delete;
  SectorCipher& operator=(const SectorCipher&) = delete;

  // source.size() == target.size(), a multiple of sector_size(); any alignment; the same memory, or
  // memory that does not overlap. `first` is the number of the first sector in units of 512 bytes
  // (so the 4096-byte sector k has the IV 8k), a multiple of sector_size() / 512. An error is
  // OpenSSL's and very rare: it had no memory for another thread's state.
  virtual Result<void> encrypt(uint64_t first, Bytes source, MutableBytes target) const = 0;
  virtual Result<void> decrypt(uint64_t first, Bytes source, MutableBytes target) const = 0;

  uint32_t sector_size() const { return sector_size_; }
  // "vaes512", "vaes256", "aesni" or "openssl".
  virtual std::string_view kernel() const = 0;

 protected:
  explicit SectorCipher(uint32_t sector_size) : sector_size_(sector_size) {}
  void check_request(uint64_t first, Bytes source, MutableBytes target) const;

 private:
  const uint32_t sector_size_;
};

// `key` is copied. kUnsupported: no such cipher, mode or IV here, or not with a key of this length
// (the caller names spec.to_text()); ECB is refused, since equal sectors would look equal.
// kInvalid: the sector size, or an XTS key whose halves are equal.
Result<std::unique_ptr<SectorCipher>> make_sector_cipher(const CipherSpec& spec, Bytes key,
                                                         uint32_t sector_size,
                                                         CpuFeatures features);

// Whether make_sector_cipher() would make it with a key of `key_bytes`. Asked before an image is
// formatted, when there is no key yet.
bool is_cipher_available(const CipherSpec& spec, size_t key_bytes);

}  // namespace ringdisk
