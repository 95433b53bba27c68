// SPDX-License-Identifier: Apache-2.0
// The OpenSSL objects behind crypto/digest.h, for the files of this folder alone.
#pragma once

#include <openssl/evp.h>

#include <memory>

#include "crypto/digest.h"

namespace ringdisk::crypto_internal {

struct FreeMethod {
  void operator()(EVP_MD* method) const { EVP_MD_free(method); }
};

// A hash, and the library context it comes from, which what is built upon it has to name.
struct HashMethod {
  OSSL_LIB_CTX* library = nullptr;             // null: the default one
  std::unique_ptr<EVP_MD, FreeMethod> digest;  // null: this OpenSSL has no such hash
};

HashMethod fetch(Hash hash);

// kUnsupported, of `operation`.
Error missing_hash(const char* operation);

}  // namespace ringdisk::crypto_internal
