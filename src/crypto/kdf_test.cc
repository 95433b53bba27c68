// SPDX-License-Identifier: Apache-2.0
// Digests and key derivation against published vectors: FIPS 180, RFC 6070, the vectors of Argon2's
// reference implementation (RFC 9106's own use a secret and associated data, which LUKS does not);
// those of other hashes come from Python's hashlib.
#include "crypto/kdf.h"

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include <array>

#include "crypto/hex_test.h"

namespace ringdisk {
namespace {

std::string digest_of(Hash hash, std::initializer_list<Bytes> parts) {
  std::vector<std::byte> digest(digest_size(hash));
  EXPECT_TRUE(compute_digest(hash, parts, digest).ok());
  return to_hex(digest);
}

bool has_no_legacy_provider() { return !is_available(Hash::kWhirlpool); }

TEST(Digest, MatchesPublishedVectors) {
  const std::initializer_list<Bytes> abc = {as_bytes("a"), as_bytes(""), as_bytes("bc")};
  EXPECT_EQ(digest_of(Hash::kSha1, abc), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(digest_of(Hash::kSha256, abc),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest_of(Hash::kSha512, abc),
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c"
            "23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
  EXPECT_EQ(digest_of(Hash::kSha3_256, abc),
            "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532");
  EXPECT_EQ(digest_of(Hash::kBlake2s256, abc),
            "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
  EXPECT_EQ(digest_of(Hash::kRipemd160, abc), "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc");
  EXPECT_EQ(digest_of(Hash::kSm3, abc),
            "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0");
  EXPECT_EQ(digest_of(Hash::kSha512_256, abc),
            "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23");
  EXPECT_EQ(digest_of(Hash::kSha512_224, abc),
            "4634270f707b6a54daae7530460842e20e37ed265ceee9a43e8924aa");
  EXPECT_EQ(digest_of(Hash::kMd5, abc), "900150983cd24fb0d6963f7d28e17f72");
}

TEST(Digest, GivesAsMuchOfItAsIsAskedFor) {
  std::array<std::byte, 5> front;
  ASSERT_TRUE(compute_digest(Hash::kSha256, {as_bytes("abc")}, front).ok());
  EXPECT_EQ(to_hex(front), "ba7816bf8f");
}

TEST(Digest, KnowsHashesByTheNamesThatHeadersRecord) {
  for (const char* name : {"sha1", "sha224", "sha256", "sha384", "sha512", "sha3-256", "ripemd160",
                           "whirlpool", "blake2b-512", "blake2s-256", "sm3", "sha512-224",
                           "sha512-256", "md5", "md4", "md5-sha1"}) {
    const std::optional<Hash> hash = find_hash(name);
    ASSERT_TRUE(hash.has_value()) << name;
    EXPECT_EQ(name_of(*hash), name);
    EXPECT_TRUE(is_available(*hash) || has_no_legacy_provider()) << name;
  }
  EXPECT_FALSE(find_hash("sha").has_value());
  EXPECT_FALSE(find_hash("sha2560").has_value());
  EXPECT_FALSE(find_hash("stribog512").has_value());
  EXPECT_FALSE(find_hash("").has_value());
}

TEST(Digest, KnowsOpensslsOtherNamesInLettersOfEitherCase) {
  EXPECT_EQ(find_hash("SHA256"), Hash::kSha256);
  EXPECT_EQ(find_hash("sha2-256"), Hash::kSha256);
  EXPECT_EQ(find_hash("SHA2-512/224"), Hash::kSha512_224);
  EXPECT_EQ(find_hash("rmd160"), Hash::kRipemd160);
  EXPECT_EQ(find_hash("BLAKE2b512"), Hash::kBlake2b512);
}

// The default library context does not have them before, nor after they were asked for.
TEST(Digest, TakesHashesOfTheLegacyProviderWithoutLoadingItForOthers) {
  if (has_no_legacy_provider()) GTEST_SKIP() << "this machine has no legacy.so";
  const std::initializer_list<Bytes> abc = {as_bytes("abc")};
  EXPECT_EQ(digest_of(Hash::kWhirlpool, abc),
            "4e2448a4c6f486bb16b6562c73b4020bf3043e3a731bce721ae1b303d97e6d4c7181eebdb6c57e277d0e34"
            "957114cbd6c797fc9d95d8b582d225292076d4eef5");
  EXPECT_EQ(digest_of(Hash::kMd4, abc), "a448017aaf21d8525fc10ae87aa6729d");
  EXPECT_EQ(OSSL_PROVIDER_available(nullptr, "legacy"), 0);
  EXPECT_EQ(EVP_MD_fetch(nullptr, "WHIRLPOOL", nullptr), nullptr);
  ERR_clear_error();
}

TEST(Digest, SaysWhyANameIsNotAvailable) {
  EXPECT_EQ(why_unavailable("stribog512"), "is not known");
  EXPECT_NE(why_unavailable("whirlpool").find("legacy.so"), std::string_view::npos);
}

std::string derive(Hash hash, std::string_view password, std::string_view salt, uint32_t iterations,
                   size_t bytes) {
  std::vector<std::byte> key(bytes);
  EXPECT_TRUE(pbkdf2(hash, as_bytes(password), as_bytes(salt), iterations, key).ok());
  return to_hex(key);
}

TEST(Pbkdf2, MatchesPublishedVectors) {
  EXPECT_EQ(derive(Hash::kSha1, "password", "salt", 1, 20),
            "0c60c80f961f0e71f3a9b524af6012062fe037a6");
  EXPECT_EQ(derive(Hash::kSha1, "password", "salt", 4096, 20),
            "4b007901b765489abead49d926f721d065a429c1");
  EXPECT_EQ(derive(Hash::kSha1, "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt",
                   4096, 25),
            "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038");
  EXPECT_EQ(derive(Hash::kSha256, "password", "salt", 4096, 32),
            "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a");
  EXPECT_EQ(derive(Hash::kSha512, "password", "salt", 1000, 64),
            "afe6c5530785b6cc6b1c6453384731bd5ee432ee549fd42fb6695779ad8a1c5bf59de69c48f774efc4007d"
            "5298f9033c0241d5ab69305e7b64eceeb8d834cfec");
  EXPECT_EQ(derive(Hash::kRipemd160, "password", "salt", 7, 16),
            "d11eccb1971aee540274789b8f8cc82d");
}

TEST(Pbkdf2, RefusesWhatIsNoCost) {
  std::array<std::byte, 8> key;
  const Bytes text = as_bytes("x");
  EXPECT_EQ(pbkdf2(Hash::kSha256, text, text, 0, key).error().kind, ErrorKind::kInvalid);
  EXPECT_EQ(pbkdf2(Hash::kSha256, text, text, kPbkdf2IterationsMax + 1, key).error().kind,
            ErrorKind::kInvalid);
  EXPECT_EQ(pbkdf2(Hash::kSha256, text, text, 1, MutableBytes()).error().kind, ErrorKind::kInvalid);
}

TEST(Pbkdf2, TakesAnEmptyPassword) {
  EXPECT_EQ(derive(Hash::kSha256, "", "salt", 1, 32),
            "f135c27993baf98773c5cdb40a5706ce6a345cde61b000a67858650cd6a324d7");
}

std::string derive(Argon2Kind kind, std::string_view password, Argon2Cost cost) {
  std::vector<std::byte> key(32);
  EXPECT_TRUE(argon2(kind, as_bytes(password), as_bytes("somesalt"), cost, key).ok());
  return to_hex(key);
}

TEST(Argon2, MatchesPublishedVectors) {
  EXPECT_EQ(derive(Argon2Kind::kI, "password", Argon2Cost{2, 256, 1}),
            "89e9029f4637b295beb027056a7336c414fadd43f6b208645281cb214a56452f");
  EXPECT_EQ(derive(Argon2Kind::kId, "password", Argon2Cost{2, 256, 1}),
            "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
  EXPECT_EQ(derive(Argon2Kind::kId, "password", Argon2Cost{2, 256, 2}),
            "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037");
}

TEST(Argon2, RefusesWhatIsNoCost) {
  std::array<std::byte, 32> key;
  const Bytes salt = as_bytes("somesalt");
  for (Argon2Cost cost : {Argon2Cost{0, 256, 1}, Argon2Cost{1, 4, 1}, Argon2Cost{1, 256, 0},
                          Argon2Cost{1, 1 << 20, kArgon2LanesMax + 1}}) {
    const Result<void> derived = argon2(Argon2Kind::kId, as_bytes("x"), salt, cost, key);
    ASSERT_FALSE(derived.ok());
    EXPECT_EQ(derived.error().kind, ErrorKind::kInvalid);
  }
  EXPECT_FALSE(
      argon2(Argon2Kind::kId, as_bytes("x"), as_bytes("short"), Argon2Cost{1, 64, 1}, key).ok());
}

}  // namespace
}  // namespace ringdisk
