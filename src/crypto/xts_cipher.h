// SPDX-License-Identifier: Apache-2.0
// The SectorCipher over our own XTS kernels, for the files of this folder alone.
#pragma once

#include "crypto/sector_cipher.h"

namespace ringdisk::crypto_internal {

// AES-128 or AES-256 in XTS with plain or plain64, on a machine with AES instructions.
bool has_xts_kernel(const CipherSpec& spec, size_t key_bytes, CpuFeatures features);

// Only where has_xts_kernel().
Result<std::unique_ptr<SectorCipher>> make_xts_cipher(const CipherSpec& spec, Bytes key,
                                                      uint32_t sector_size, CpuFeatures features);

}  // namespace ringdisk::crypto_internal
