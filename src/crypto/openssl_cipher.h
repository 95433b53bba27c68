// SPDX-License-Identifier: Apache-2.0
// The SectorCipher over OpenSSL's EVP interface, for the files of this folder alone.
#pragma once

#include "crypto/sector_cipher.h"

namespace ringdisk::crypto_internal {

bool has_openssl_cipher(const CipherSpec& spec, size_t key_bytes);

// kUnsupported where there is no such cipher, mode or IV, or not with a key of this length.
Result<std::unique_ptr<SectorCipher>> make_openssl_cipher(const CipherSpec& spec, Bytes key,
                                                          uint32_t sector_size);

}  // namespace ringdisk::crypto_internal
