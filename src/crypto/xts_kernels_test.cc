// SPDX-License-Identifier: Apache-2.0
// The XTS kernels this machine can run: against IEEE 1619, against OpenSSL, against each other.
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <memory>
#include <string>
#include <vector>

#include "base/endian.h"
#include "base/random.h"
#include "crypto/cpu_features.h"
#include "crypto/xts_kernel.h"
#include "crypto/xts_vectors_test.h"

namespace ringdisk {
namespace {

struct Kernel {
  const char* name;
  AesKernel needs;
  XtsFunction function;
};
constexpr Kernel kKernels[] = {{"aesni", AesKernel::kAesni, xts_aesni},
                               {"vaes256", AesKernel::kVaes256, xts_vaes256},
                               {"vaes512", AesKernel::kVaes512, xts_vaes512}};

// Round keys of an XTS key, both halves.
class Keys {
 public:
  explicit Keys(const std::string& key) : memory_(4 * kAesScheduleBytes) {
    const Bytes bytes = as_bytes(key);
    const MutableBytes all(memory_);
    expand_aes_key(bytes.first(key.size() / 2), all.first(kAesScheduleBytes),
                   all.subspan(kAesScheduleBytes, kAesScheduleBytes));
    expand_aes_key(bytes.subspan(key.size() / 2),
                   all.subspan(2 * kAesScheduleBytes, kAesScheduleBytes),
                   all.last(kAesScheduleBytes));
    keys_.encrypt = memory_.data();
    keys_.decrypt = keys_.encrypt + kAesScheduleBytes;
    keys_.tweak = keys_.decrypt + kAesScheduleBytes;
    keys_.rounds = key.size() == 32 ? 10 : 14;
  }
  const XtsRoundKeys& get() const { return keys_; }

 private:
  std::vector<std::byte> memory_;
  XtsRoundKeys keys_;
};

std::string drawn_bytes(Random& random, size_t count) {
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.next());
  return bytes;
}

struct Request {
  uint64_t first = 0;
  uint64_t mask = ~uint64_t{0};
  uint32_t sector_size = 512;
};

// With `shift` bytes between aligned memory and where the sectors lie, source and target apart.
std::string run(const Kernel& kernel, const Keys& keys, const Request& request,
                const std::string& text, bool encrypts, size_t shift = 0, bool in_place = false) {
  std::string source = std::string(shift, 's') + text;
  std::string target(2 * shift + text.size() + 64, 't');
  XtsWork work;
  work.first = request.first;
  work.number_mask = request.mask;
  work.sector_size = request.sector_size;
  work.bytes = text.size();
  if (in_place) target.replace(2 * shift, text.size(), text);
  // why: the kernels take bytes
  work.target = reinterpret_cast<std::byte*>(target.data() + 2 * shift);
  // why: the kernels take bytes
  work.source = in_place ? work.target : reinterpret_cast<const std::byte*>(source.data() + shift);
  kernel.function(keys.get(), work, encrypts);
  EXPECT_TRUE(target.substr(0, 2 * shift) == std::string(2 * shift, 't')) << "wrote before it";
  EXPECT_TRUE(target.substr(2 * shift + text.size()) == std::string(64, 't')) << "wrote behind it";
  EXPECT_TRUE(source.substr(shift) == text) << "wrote into the source";
  return target.substr(2 * shift, text.size());
}

// The reference: one sector after the other.
std::string openssl_xts(const std::string& key, const Request& request, const std::string& text,
                        bool encrypts) {
  const EVP_CIPHER* method = key.size() == 32 ? EVP_aes_128_xts() : EVP_aes_256_xts();
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  std::vector<unsigned char> source(text.begin(), text.end());
  std::vector<unsigned char> target(text.size());
  const std::vector<unsigned char> key_bytes(key.begin(), key.end());
  for (size_t at = 0; at < text.size(); at += request.sector_size) {
    unsigned char iv[16] = {};
    const uint64_t number = (request.first + at / 512) & request.mask;
    for (size_t i = 0; i < 8; ++i) iv[i] = static_cast<unsigned char>(number >> (8 * i));
    int written = 0;
    EXPECT_EQ(EVP_CipherInit_ex(context, method, nullptr, key_bytes.data(), iv, encrypts), 1);
    EXPECT_EQ(EVP_CipherUpdate(context, target.data() + at, &written, source.data() + at,
                               static_cast<int>(request.sector_size)),
              1);
  }
  EVP_CIPHER_CTX_free(context);
  return std::string(target.begin(), target.end());
}

class XtsKernelTest : public ::testing::TestWithParam<Kernel> {
 protected:
  void SetUp() override {
    if (!CpuFeatures::detect().has(GetParam().needs)) {
      GTEST_SKIP() << "this machine has no " << GetParam().name;
    }
  }
  void expect_both_ways(const Keys& keys, const Request& request, const std::string& plain,
                        const std::string& cipher) {
    EXPECT_TRUE(run(GetParam(), keys, request, plain, true) == cipher) << "encrypting";
    EXPECT_TRUE(run(GetParam(), keys, request, cipher, false) == plain) << "decrypting";
  }
};

std::string counted_bytes() {
  std::string plain;
  for (int i = 0; i < 512; ++i) plain.push_back(static_cast<char>(i & 0xff));
  return plain;
}

TEST_P(XtsKernelTest, GivesThePublishedVectors) {
  expect_both_ways(Keys(from_hex(kVector4Key)), Request(), counted_bytes(),
                   from_hex(kVector4Ciphertext));
  const Keys keys(from_hex(kVector10Key));
  Request request;
  request.first = 0xff;
  expect_both_ways(keys, request, counted_bytes(), from_hex(kVector10Ciphertext));
  request.first = 0xffffffffff;
  expect_both_ways(keys, request, counted_bytes(), from_hex(kVector14Ciphertext));
}

// As many sectors as a batch of tweaks has and more, numbers that cross 2^32 and 2^64.
TEST_P(XtsKernelTest, AgreesWithOpensslOnDrawnLengthsAndNumbers) {
  Random random(17);
  const uint64_t starts[] = {0, 8, 0xfffffff8, 0xfffffffffffffff8, uint64_t{1} << 63};
  for (int round = 0; round < 200; ++round) {
    Request request;
    request.sector_size = 512u << random.below(4);
    request.mask = random.below(2) == 0 ? ~uint64_t{0} : 0xffffffff;
    const uint64_t start = round % 2 == 0 ? starts[random.below(5)] : random.next();
    request.first = start & ~uint64_t{7};
    const std::string key = drawn_bytes(random, random.below(2) == 0 ? 32 : 64);
    const std::string plain =
        drawn_bytes(random, request.sector_size * (1 + static_cast<size_t>(random.below(40))));
    SCOPED_TRACE(::testing::Message() << "round " << round << ", " << plain.size() << " bytes in "
                                      << request.sector_size << " from " << request.first);
    const std::string cipher = openssl_xts(key, request, plain, true);
    ASSERT_TRUE(openssl_xts(key, request, cipher, false) == plain);
    expect_both_ways(Keys(key), request, plain, cipher);
    if (HasFailure()) return;
  }
}

TEST_P(XtsKernelTest, WorksInPlaceAndAtAnyAddress) {
  Random random(18);
  const Keys keys(drawn_bytes(random, 64));
  Request request;
  request.first = 1234;
  const std::string plain = drawn_bytes(random, 19 * 512);
  const std::string cipher = run(GetParam(), keys, request, plain, true);
  ASSERT_FALSE(cipher == plain);
  for (size_t shift : {0, 1, 3, 8, 15, 16, 17, 33, 63}) {
    SCOPED_TRACE(shift);
    for (bool in_place : {false, true}) {
      EXPECT_TRUE(run(GetParam(), keys, request, plain, true, shift, in_place) == cipher);
      EXPECT_TRUE(run(GetParam(), keys, request, cipher, false, shift, in_place) == plain);
    }
  }
}

TEST_P(XtsKernelTest, NothingIsNothing) {
  const Keys keys(from_hex(kVector10Key));
  EXPECT_EQ(run(GetParam(), keys, Request(), "", true, 5), "");
}

INSTANTIATE_TEST_SUITE_P(Kernels, XtsKernelTest, ::testing::ValuesIn(kKernels),
                         [](const auto& kernel) { return kernel.param.name; });

// The narrowest is the reference here: no library between.
TEST(XtsKernelsTest, AgreeWithEachOther) {
  const CpuFeatures features = CpuFeatures::detect();
  if (!features.has(AesKernel::kAesni)) GTEST_SKIP() << "this machine has no AES instructions";
  Random random(19);
  for (int round = 0; round < 100; ++round) {
    Request request;
    request.sector_size = 512u << random.below(4);
    request.first = random.next() & ~uint64_t{7};
    const Keys keys(drawn_bytes(random, round % 2 == 0 ? 32 : 64));
    const std::string text =
        drawn_bytes(random, request.sector_size * (1 + static_cast<size_t>(random.below(36))));
    for (bool encrypts : {true, false}) {
      const std::string expected = run(kKernels[0], keys, request, text, encrypts);
      for (const Kernel& kernel : kKernels) {
        if (!features.has(kernel.needs)) continue;
        ASSERT_TRUE(run(kernel, keys, request, text, encrypts) == expected) << kernel.name;
      }
    }
  }
}

// FIPS 197, appendix A: the last words of both expansions.
TEST(AesKeysTest, AreThoseOfTheStandard) {
  if (!CpuFeatures::detect().has(AesKernel::kAesni)) GTEST_SKIP() << "no AES instructions";
  std::vector<std::byte> encrypt(kAesScheduleBytes);
  std::vector<std::byte> decrypt(kAesScheduleBytes);
  const std::string short_key = from_hex("2b7e151628aed2a6abf7158809cf4f3c");
  expand_aes_key(as_bytes(short_key), encrypt, decrypt);
  EXPECT_EQ(as_text(Bytes(encrypt).subspan(160, 16)), from_hex("d014f9a8c9ee2589e13f0cc8b6630ca6"));
  EXPECT_EQ(as_text(Bytes(decrypt).first(16)), from_hex("d014f9a8c9ee2589e13f0cc8b6630ca6"));
  EXPECT_EQ(as_text(Bytes(decrypt).subspan(160, 16)), short_key);
  const std::string long_key =
      from_hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
  expand_aes_key(as_bytes(long_key), encrypt, decrypt);
  EXPECT_EQ(as_text(Bytes(encrypt).subspan(224, 16)), from_hex("fe4890d1e6188d0b046df344706c631e"));
  EXPECT_EQ(as_text(Bytes(decrypt).subspan(224, 16)), long_key.substr(0, 16));
}

}  // namespace
}  // namespace ringdisk
