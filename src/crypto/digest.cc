// SPDX-License-Identifier: Apache-2.0
// The table of hashes, digests by OpenSSL, and where its legacy provider is loaded.
#include "crypto/digest.h"

#include <openssl/err.h>
#include <openssl/provider.h>

#include <algorithm>
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
constexpr std::array<Entry, 19> kEntries = {{
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
    {Hash::kSha512_224, "sha512-224", "SHA2-512/224", 28},
    {Hash::kSha512_256, "sha512-256", "SHA2-512/256", 32},
    {Hash::kMd5, "md5", "MD5", 16},
    {Hash::kMd4, "md4", "MD4", 16},
    {Hash::kMd5Sha1, "md5-sha1", "MD5-SHA1", 36},
}};

constexpr bool is_in_order() {
  for (size_t i = 0; i < kEntries.size(); ++i) {
    if (static_cast<size_t>(kEntries[i].hash) != i) return false;
    if (kEntries[i].bytes > kDigestBytesMax) return false;
  }
  return true;
}
static_assert(is_in_order());

// OpenSSL's other names, in small letters.
struct Alias {
  std::string_view name;
  Hash hash;
};
constexpr std::array<Alias, 20> kAliases = {{
    {"sha-1", Hash::kSha1},
    {"ssl3-sha1", Hash::kSha1},
    {"sha-224", Hash::kSha224},
    {"sha2-224", Hash::kSha224},
    {"sha-256", Hash::kSha256},
    {"sha2-256", Hash::kSha256},
    {"sha-384", Hash::kSha384},
    {"sha2-384", Hash::kSha384},
    {"sha-512", Hash::kSha512},
    {"sha2-512", Hash::kSha512},
    {"sha-512/224", Hash::kSha512_224},
    {"sha2-512/224", Hash::kSha512_224},
    {"sha-512/256", Hash::kSha512_256},
    {"sha2-512/256", Hash::kSha512_256},
    {"ripemd", Hash::kRipemd160},
    {"ripemd-160", Hash::kRipemd160},
    {"rmd160", Hash::kRipemd160},
    {"blake2b512", Hash::kBlake2b512},
    {"blake2s256", Hash::kBlake2s256},
    {"ssl3-md5", Hash::kMd5},
}};

bool equal_but_for_case(std::string_view name, std::string_view in_small_letters) {
  auto is_same = [](char one, char small) {
    const char lower = one >= 'A' && one <= 'Z' ? static_cast<char>(one - 'A' + 'a') : one;
    return lower == small;
  };
  return std::ranges::equal(name, in_small_letters, is_same);
}

const Entry& entry_of(Hash hash) { return kEntries[static_cast<size_t>(hash)]; }

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }  // wipes its state
};

}  // namespace

namespace crypto_internal {

namespace {

// A library context of our own with the default and the legacy provider: loading the latter into
// the one that everybody uses would offer RC4 and MD4 to TLS.
OSSL_LIB_CTX* make_legacy_context() {
  OSSL_LIB_CTX* context = OSSL_LIB_CTX_new();
  if (context == nullptr) return nullptr;
  if (OSSL_PROVIDER_load(context, "default") != nullptr &&
      OSSL_PROVIDER_load(context, "legacy") != nullptr) {
    return context;
  }
  OSSL_LIB_CTX_free(context);
  return nullptr;
}

// Null: there is no legacy.so. Loaded once, because a volume asks for thousands of digests, and
// never freed, because a thread may be deriving a key when the process ends.
OSSL_LIB_CTX* legacy_context() {
  static OSSL_LIB_CTX* const context = make_legacy_context();
  return context;
}

}  // namespace

HashMethod fetch(Hash hash) {
  const char* name = entry_of(hash).openssl_name;
  HashMethod method;
  method.digest.reset(EVP_MD_fetch(nullptr, name, nullptr));
  if (!method.digest && legacy_context() != nullptr) {
    method.library = legacy_context();
    method.digest.reset(EVP_MD_fetch(method.library, name, nullptr));
  }
  if (!method.digest) ERR_clear_error();
  return method;
}

Error missing_hash(const char* operation) { return Error::of(ErrorKind::kUnsupported, operation); }

}  // namespace crypto_internal

std::optional<Hash> find_hash(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (equal_but_for_case(name, entry.name)) return entry.hash;
  }
  for (const Alias& alias : kAliases) {
    if (equal_but_for_case(name, alias.name)) return alias.hash;
  }
  return std::nullopt;
}

std::string_view name_of(Hash hash) { return entry_of(hash).name; }
size_t digest_size(Hash hash) { return entry_of(hash).bytes; }
bool is_available(Hash hash) { return crypto_internal::fetch(hash).digest != nullptr; }

std::optional<Hash> find_available_hash(std::string_view name) {
  const std::optional<Hash> hash = find_hash(name);
  return hash && is_available(*hash) ? hash : std::nullopt;
}

std::string_view why_unavailable(std::string_view name) {
  const std::optional<Hash> hash = find_hash(name);
  if (!hash) return "is not known";
  if (hash == Hash::kWhirlpool || hash == Hash::kMd4) {
    return "needs OpenSSL's legacy provider: install legacy.so (Debian 12: libssl3, later ones: "
           "openssl-provider-legacy)";
  }
  return "this OpenSSL does not have";
}

Result<void> compute_digest(Hash hash, std::initializer_list<Bytes> parts, MutableBytes target) {
  CHECK_LE(target.size(), digest_size(hash));
  constexpr const char* kOperation = "compute digest";
  const crypto_internal::HashMethod method = crypto_internal::fetch(hash);
  if (!method.digest) return crypto_internal::missing_hash(kOperation);
  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  bool works = context && EVP_DigestInit_ex2(context.get(), method.digest.get(), nullptr) == 1;
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
