// SPDX-License-Identifier: Apache-2.0
// Sector ciphers: what is chosen, what it gives (by OpenSSL's own one-shot calls), what is refused.
#include "crypto/sector_cipher.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "crypto/digest.h"
#include "crypto/xts_vectors_test.h"

namespace ringdisk {
namespace {

std::string drawn_bytes(Random& random, size_t count) {
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.next());
  return bytes;
}

CpuFeatures none() { return CpuFeatures(); }

std::unique_ptr<SectorCipher> make(const char* text, const std::string& key,
                                   uint32_t sector_size = 512, CpuFeatures features = none()) {
  const CipherSpec spec = CipherSpec::parse(text).value();
  Result<std::unique_ptr<SectorCipher>> cipher =
      make_sector_cipher(spec, as_bytes(key), sector_size, features);
  EXPECT_TRUE(cipher.ok()) << text;
  EXPECT_TRUE(is_cipher_available(spec, key.size())) << text;
  return cipher.ok() ? std::move(cipher).value() : nullptr;
}

std::string apply(const SectorCipher& cipher, uint64_t first, std::string text, bool encrypts) {
  std::vector<std::byte> bytes(as_bytes(text).begin(), as_bytes(text).end());
  const MutableBytes memory(bytes);
  Result<void> done =
      encrypts ? cipher.encrypt(first, memory, memory) : cipher.decrypt(first, memory, memory);
  EXPECT_TRUE(done.ok());
  return std::string(as_text(memory));
}

// One call of OpenSSL over one sector, for what is expected.
std::string one_shot(const char* method, const std::string& key, const std::string& iv,
                     const std::string& text) {
  EVP_CIPHER* cipher = EVP_CIPHER_fetch(nullptr, method, nullptr);
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  const std::vector<unsigned char> key_bytes(key.begin(), key.end());
  const std::vector<unsigned char> iv_bytes(iv.begin(), iv.end());
  std::vector<unsigned char> source(text.begin(), text.end());
  std::vector<unsigned char> target(text.size());
  int written = 0;
  EXPECT_EQ(EVP_EncryptInit_ex2(context, cipher, key_bytes.data(),
                                iv.empty() ? nullptr : iv_bytes.data(), nullptr),
            1);
  EVP_CIPHER_CTX_set_padding(context, 0);
  EXPECT_EQ(EVP_EncryptUpdate(context, target.data(), &written, source.data(),
                              static_cast<int>(source.size())),
            1);
  EVP_CIPHER_CTX_free(context);
  EVP_CIPHER_free(cipher);
  return std::string(target.begin(), target.end());
}

std::string number_iv(uint64_t number) {
  std::string iv(16, '\0');
  for (size_t i = 0; i < 8; ++i) iv[i] = static_cast<char>(number >> (8 * i));
  return iv;
}

std::string essiv(const char* ecb, const std::string& key, uint64_t number) {
  std::vector<std::byte> digest(32);
  EXPECT_TRUE(compute_digest(Hash::kSha256, {as_bytes(key)}, digest).ok());
  return one_shot(ecb, std::string(as_text(Bytes(digest))), "", number_iv(number));
}

struct Known {
  const char* spec;
  const char* method;
  size_t key_bytes;
  const char* ecb = nullptr;  // of essiv
};
constexpr Known kKnown[] = {
    {"aes-xts-plain64", "AES-256-XTS", 64, nullptr},
    {"aes-xts-plain64", "AES-128-XTS", 32, nullptr},
    {"aes-xts-plain", "AES-256-XTS", 64, nullptr},
    {"aes-cbc-plain64", "AES-256-CBC", 32, nullptr},
    {"aes-cbc-plain", "AES-192-CBC", 24, nullptr},
    {"aes-cbc-essiv:sha256", "AES-256-CBC", 32, "AES-256-ECB"},
    {"aes-cbc-essiv:sha256", "AES-128-CBC", 16, "AES-256-ECB"},
    {"camellia-cbc-essiv:sha256", "CAMELLIA-256-CBC", 32, "CAMELLIA-256-ECB"},
    {"aria-cbc-plain64", "ARIA-256-CBC", 32, nullptr},
    {"sm4-cbc-plain64", "SM4-CBC", 16, nullptr},
    {"aes-xts-essiv:sha256", "AES-256-XTS", 64, "AES-256-ECB"},
};

TEST(SectorCipherTest, EachSectorIsWhatOpensslMakesOfItByItself) {
  Random random(3);
  for (const Known& known : kKnown) {
    for (uint32_t sector_size : {512u, 4096u}) {
      SCOPED_TRACE(::testing::Message() << known.method << " as " << known.spec);
      const std::string key = drawn_bytes(random, known.key_bytes);
      std::unique_ptr<SectorCipher> cipher = make(known.spec, key, sector_size);
      ASSERT_TRUE(cipher);
      EXPECT_EQ(cipher->kernel(), "openssl");
      const uint64_t first = (uint64_t{1} << 32) - 2 * 8;  // crosses 2^32
      const size_t sectors = 70;                           // more than are worked on at once
      const std::string plain = drawn_bytes(random, sectors * sector_size);
      const std::string ciphered = apply(*cipher, first, plain, true);
      for (size_t i = 0; i < sectors; ++i) {
        uint64_t number = first + i * (sector_size / 512);
        if (std::string_view(known.spec).ends_with("-plain")) number &= 0xffffffff;
        const std::string iv = known.ecb ? essiv(known.ecb, key, number) : number_iv(number);
        const std::string expected =
            one_shot(known.method, key, iv, plain.substr(i * sector_size, sector_size));
        ASSERT_TRUE(ciphered.substr(i * sector_size, sector_size) == expected) << "sector " << i;
      }
      EXPECT_TRUE(apply(*cipher, first, ciphered, false) == plain);
    }
  }
}

TEST(SectorCipherTest, OurKernelsAreChosenForAesXtsAndAgreeWithOpenssl) {
  Random random(4);
  const CpuFeatures detected = CpuFeatures::detect();
  for (AesKernel kernel : {AesKernel::kAesni, AesKernel::kVaes256, AesKernel::kVaes512}) {
    if (!detected.has(kernel)) continue;
    const CpuFeatures features = CpuFeatures::choose(name_of(kernel), detected).value();
    for (const char* spec : {"aes-xts-plain64", "aes-xts-plain"}) {
      for (size_t key_bytes : {32, 64}) {
        const std::string key = drawn_bytes(random, key_bytes);
        std::unique_ptr<SectorCipher> ours = make(spec, key, 1024, features);
        std::unique_ptr<SectorCipher> theirs = make(spec, key, 1024);
        EXPECT_EQ(ours->kernel(), name_of(kernel));
        const std::string plain = drawn_bytes(random, 65536);
        const uint64_t first = (uint64_t{1} << 32) - 64;
        const std::string ciphered = apply(*ours, first, plain, true);
        EXPECT_TRUE(ciphered == apply(*theirs, first, plain, true));
        EXPECT_TRUE(apply(*ours, first, ciphered, false) == plain);
      }
    }
    EXPECT_EQ(make("aes-cbc-plain64", drawn_bytes(random, 32), 512, features)->kernel(), "openssl");
  }
}

TEST(SectorCipherTest, GivesThePublishedVectorThroughOpensslToo) {
  std::string plain;
  for (int i = 0; i < 512; ++i) plain.push_back(static_cast<char>(i & 0xff));
  std::unique_ptr<SectorCipher> cipher = make("aes-xts-plain64", from_hex(kVector10Key));
  EXPECT_TRUE(apply(*cipher, 0xff, plain, true) == from_hex(kVector10Ciphertext));
}

TEST(SectorCipherTest, WhatIsNotThereIsRefused) {
  Random random(5);
  struct Refused {
    const char* spec;
    size_t key_bytes;
  };
  for (const Refused& refused : std::initializer_list<Refused>{
           {"aes-ecb", 32},              // equal sectors look equal
           {"aes-ecb-plain64", 32},      //
           {"aes-ctr-plain64", 32},      // a stream: a sector written twice gives both away
           {"serpent-xts-plain64", 64},  // OpenSSL has none
           {"twofish-cbc-plain64", 32},
           {"aes-xts-plain64be", 64},
           {"aes-xts-benbi", 64},
           {"aes-cbc-lmk", 32},
           {"aes-xts-plain64", 48},  // XTS has no AES-192
           {"aes-xts-plain64", 33},
           {"aes-xts-plain64", 0},
           {"aes-cbc-plain64", 64},
           {"aes-cbc-essiv:sha1", 32},  // 20 bytes are no key of AES
           {"aes-cbc-essiv:nothing", 32},
           {"des3-cbc-plain64", 24},
           {"camellia-xts-plain64", 64}}) {
    const CipherSpec spec = CipherSpec::parse(refused.spec).value();
    const std::string key = drawn_bytes(random, refused.key_bytes);
    Result<std::unique_ptr<SectorCipher>> cipher =
        make_sector_cipher(spec, as_bytes(key), 512, CpuFeatures::detect());
    ASSERT_FALSE(cipher.ok()) << refused.spec << " with " << refused.key_bytes;
    EXPECT_EQ(cipher.error().kind, ErrorKind::kUnsupported) << refused.spec;
    EXPECT_FALSE(is_cipher_available(spec, refused.key_bytes)) << refused.spec;
  }
}

// qemu-img records it, and nothing comes of it.
TEST(SectorCipherTest, AHashWhereIvsAreMadeWithoutOneIsPassedOver) {
  Random random(11);
  const std::string key = drawn_bytes(random, 32), text = drawn_bytes(random, 1024);
  for (const std::string spec : {"aes-xts-plain64", "aes-cbc-plain", "aes-cbc-plain64"}) {
    for (CpuFeatures features : {none(), CpuFeatures::detect()}) {
      const auto without = make(spec.c_str(), key, 512, features);
      const auto with = make((spec + ":sha1").c_str(), key, 512, features);
      ASSERT_TRUE(without && with) << spec;
      EXPECT_TRUE(apply(*with, 5, text, true) == apply(*without, 5, text, true)) << spec;
    }
  }
}

TEST(SectorCipherTest, WeakKeysAndOddSectorsAreInvalid) {
  const CpuFeatures detected = CpuFeatures::detect();
  const std::string weak(64, 'k');
  for (CpuFeatures features : {none(), detected}) {
    Result<std::unique_ptr<SectorCipher>> cipher =
        make_sector_cipher(CipherSpec(), as_bytes(weak), 512, features);
    ASSERT_FALSE(cipher.ok());
    EXPECT_EQ(cipher.error().kind, ErrorKind::kInvalid);
  }
  const std::string key = from_hex(kVector10Key);
  for (uint32_t sector_size : {0u, 1u, 256u, 513u, 1536u, 8192u}) {
    EXPECT_FALSE(make_sector_cipher(CipherSpec(), as_bytes(key), sector_size, detected).ok());
  }
}

}  // namespace
}  // namespace ringdisk
