// SPDX-License-Identifier: Apache-2.0
// The table of hashes, and digests by OpenSSL.
#include "crypto/digest.h"

#include <openssl/err.h>

#include <array>

#include "crypto/openssl_hash.h"
#include "crypto/secret.h"

namespace ringdisk {
namespace {

struct Entry {
  Hash hash;
  std::string_view name;
  const char* openssl_name;
  uint8_t bytes;
};

// In the order of the enumeration.
constexpr std::array<Entry, 14> kEntries = {{
    {Hash::kSha1, "sha1", "SHA1", 20},
    {Hash::kSha224, "sha224", "SHA2-224", 28},
    {Hash::kSha256, "sha256", "SHA2-256", 32},
    {Hash::kSha384, "sha384", "SHA2-384", 48},
    {Hash::kSha512, "sha512", "SHA2-512", 64},
    {Hash::kSha3_224, "sha3-224", "SHA3-224", 28},
    {Hash::kSha3_256, "sha3-256", "SHA3-256", 32},
    {Hash::kSha3_384, "sha3-384", "SHA3-384", 48},
    {Hash::kSha3_512, "sha3-512", "SHA3-512", 64},
    {Hash::kRipemd160, "ripemd160", "RIPEMD-160", 20},
    {Hash::kWhirlpool, "whirlpool", "WHIRLPOOL", 64},
    {Hash::kBlake2b512, "blake2b-512", "BLAKE2B-512", 64},
    {Hash::kBlake2s256, "blake2s-256", "BLAKE2S-256", 32},
    {Hash::kSm3, "sm3", "SM3", 32},
}};

constexpr bool is_in_order() {
  for (size_t i = 0; i < kEntries.size(); ++i) {
    if (static_cast<size_t>(kEntries[i].hash) != i) return false;
    if (kEntries[i].bytes > kDigestBytesMax) return false;
  }
  return true;
}
static_assert(is_in_order());

const Entry& entry_of(Hash hash) { return kEntries[static_cast<size_t>(hash)]; }

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }  // wipes its state
};

}  // namespace

namespace crypto_internal {

HashMethod fetch(Hash hash) {
  HashMethod method(EVP_MD_fetch(nullptr, entry_of(hash).openssl_name, nullptr));
  if (!method) ERR_clear_error();
  return method;
}

Error missing_hash(const char* operation) { return Error::of(ErrorKind::kUnsupported, operation); }

}  // namespace crypto_internal

std::optional<Hash> find_hash(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.name == name) return entry.hash;
  }
  return std::nullopt;
}

std::string_view name_of(Hash hash) { return entry_of(hash).name; }
size_t digest_size(Hash hash) { return entry_of(hash).bytes; }
bool is_available(Hash hash) { return crypto_internal::fetch(hash) != nullptr; }

Result<void> compute_digest(Hash hash, std::initializer_list<Bytes> parts, MutableBytes target) {
  CHECK_LE(target.size(), digest_size(hash));
  constexpr const char* kOperation = "compute digest";
  const crypto_internal::HashMethod method = crypto_internal::fetch(hash);
  if (!method) return crypto_internal::missing_hash(kOperation);
  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  bool works = context && EVP_DigestInit_ex2(context.get(), method.get(), nullptr) == 1;
  for (Bytes part : parts) {
    works = works && EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1;
  }
  std::array<std::byte, kDigestBytesMax> whole;
  const WipeAtEnd wiped{MutableBytes(whole)};
  // why: OpenSSL takes unsigned char, our spans hold std::byte
  auto* out = reinterpret_cast<unsigned char*>(whole.data());
  works = works && EVP_DigestFinal_ex(context.get(), out, nullptr) == 1;
  if (!works) {
    ERR_clear_error();
    return Error::from_errno(ENOMEM, kOperation);
  }
  copy_bytes(Bytes(whole).first(target.size()), target);
  return {};
}

}  // namespace ringdisk
