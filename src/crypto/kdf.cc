// SPDX-License-Identifier: Apache-2.0
// Both libraries behind one face. Neither keeps the passphrase: PBKDF2's contexts are wiped by
// OpenSSL, Argon2's memory by libargon2, in pages that no core dump holds.
#include "crypto/kdf.h"

#include <argon2.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <limits>
#include <memory>

#include "crypto/openssl_hash.h"

namespace ringdisk {
namespace {

constexpr const char* kOperation = "derive key";

unsigned char* as_octets(MutableBytes bytes) {
  // why: both libraries take unsigned char, our spans hold std::byte
  return reinterpret_cast<unsigned char*>(bytes.data());
}
const unsigned char* as_octets(Bytes bytes) {
  // why: both libraries take unsigned char, our spans hold std::byte
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

// libargon2's context has no const, but it only reads these.
uint8_t* as_argon2_input(Bytes bytes) { return const_cast<uint8_t*>(as_octets(bytes)); }

int allocate_blocks(uint8_t** memory, size_t bytes) {
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return ARGON2_MEMORY_ALLOCATION_ERROR;
  static_cast<void>(madvise(mapped, bytes, MADV_DONTDUMP));
  static_cast<void>(madvise(mapped, bytes, MADV_HUGEPAGE));
  *memory = static_cast<uint8_t*>(mapped);
  return ARGON2_OK;
}

// libargon2 has wiped it.
void free_blocks(uint8_t* memory, size_t bytes) { munmap(memory, bytes); }

Error argon2_error(int status) {
  if (status == ARGON2_MEMORY_ALLOCATION_ERROR) return Error::from_errno(ENOMEM, kOperation);
  if (status == ARGON2_THREAD_FAIL) return Error::from_errno(EAGAIN, kOperation);
  return Error::of(ErrorKind::kInvalid, kOperation);
}

struct FreeKdf {
  void operator()(EVP_KDF* kdf) const { EVP_KDF_free(kdf); }
  void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }  // wipes the password
};

// PKCS5_PBKDF2_HMAC() would look the hash up again, by name, in the default library context.
bool run_pbkdf2(const crypto_internal::HashMethod& method, Bytes password, Bytes salt,
                uint32_t iterations, MutableBytes target) {
  const std::unique_ptr<EVP_KDF, FreeKdf> kdf(EVP_KDF_fetch(method.library, "PBKDF2", nullptr));
  const std::unique_ptr<EVP_KDF_CTX, FreeKdf> context(kdf ? EVP_KDF_CTX_new(kdf.get()) : nullptr);
  if (!context) return false;
  int any_cost = 1;  // RFC 8018 without the lower bounds of SP 800-132
  uint64_t count = iterations;
  // why: OpenSSL's parameters have no const, but it only reads these
  auto* name = const_cast<char*>(EVP_MD_get0_name(method.digest.get()));
  auto input = [](Bytes bytes) {
    const void* start = bytes.data();
    return const_cast<void*>(bytes.empty() ? "" : start);
  };
  const std::array<OSSL_PARAM, 6> parameters = {
      OSSL_PARAM_construct_int(OSSL_KDF_PARAM_PKCS5, &any_cost),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_ITER, &count),
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, name, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, input(password), password.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, input(salt), salt.size()),
      OSSL_PARAM_construct_end()};
  return EVP_KDF_derive(context.get(), as_octets(target), target.size(), parameters.data()) == 1;
}

}  // namespace

Result<void> pbkdf2(Hash hash, Bytes password, Bytes salt, uint32_t iterations,
                    MutableBytes target) {
  constexpr auto kIntMax = static_cast<size_t>(std::numeric_limits<int>::max());
  const bool fits =
      password.size() <= kIntMax && salt.size() <= kIntMax && target.size() <= kIntMax;
  if (!fits || iterations == 0 || iterations > kPbkdf2IterationsMax || target.empty()) {
    return Error::of(ErrorKind::kInvalid, kOperation);
  }
  const crypto_internal::HashMethod method = crypto_internal::fetch(hash);
  if (!method.digest) return crypto_internal::missing_hash(kOperation);
  if (run_pbkdf2(method, password, salt, iterations, target)) return {};
  ERR_clear_error();
  return Error::from_errno(ENOMEM, kOperation);
}

Result<void> argon2(Argon2Kind kind, Bytes password, Bytes salt, Argon2Cost cost,
                    MutableBytes target) {
  constexpr size_t kLengthMax = std::numeric_limits<uint32_t>::max();
  const bool fits = password.size() <= kLengthMax && salt.size() <= kLengthMax &&
                    target.size() <= kLengthMax && cost.lanes <= kArgon2LanesMax;
  if (!fits) return Error::of(ErrorKind::kInvalid, kOperation);
  argon2_context context = {};
  context.out = as_octets(target);
  context.outlen = static_cast<uint32_t>(target.size());
  context.pwd = as_argon2_input(password);
  context.pwdlen = static_cast<uint32_t>(password.size());
  context.salt = as_argon2_input(salt);
  context.saltlen = static_cast<uint32_t>(salt.size());
  context.t_cost = cost.passes;
  context.m_cost = cost.memory_kib;
  context.lanes = cost.lanes;
  context.threads = cost.lanes;
  context.version = ARGON2_VERSION_13;
  context.allocate_cbk = &allocate_blocks;
  context.free_cbk = &free_blocks;
  const int status = argon2_ctx(&context, kind == Argon2Kind::kI ? Argon2_i : Argon2_id);
  if (status != ARGON2_OK) return argon2_error(status);
  return {};
}

}  // namespace ringdisk
