// SPDX-License-Identifier: Apache-2.0
// Which texts name a cipher, and which do not.
#include "crypto/cipher_spec.h"

#include <gtest/gtest.h>

namespace ringdisk {
namespace {

TEST(CipherSpecTest, TextsGoApartAndTogether) {
  for (const char* text : {"aes-xts-plain64", "aes-cbc-essiv:sha256", "camellia-cbc-plain",
                           "sm4-xts-plain64", "aes-cbc-essiv:sha3-256"}) {
    Result<CipherSpec> spec = CipherSpec::parse(text);
    ASSERT_TRUE(spec.ok()) << text;
    EXPECT_EQ(spec.value().to_text(), text);
    Result<CipherSpec> halves = CipherSpec::parse(spec.value().cipher, spec.value().mode_and_iv());
    ASSERT_TRUE(halves.ok());
    EXPECT_EQ(halves.value(), spec.value());
  }
  CipherSpec essiv = CipherSpec::parse("aes-cbc-essiv:sha256").value();
  EXPECT_EQ(essiv.cipher, "aes");
  EXPECT_EQ(essiv.mode, "cbc");
  EXPECT_EQ(essiv.iv, "essiv");
  EXPECT_EQ(essiv.iv_hash, "sha256");
}

// LUKS1 headers of old say "ecb" without an IV: it must be read to be refused by name.
TEST(CipherSpecTest, EcbHasNoIv) {
  Result<CipherSpec> spec = CipherSpec::parse("aes", "ecb");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec.value().to_text(), "aes-ecb");
}

TEST(CipherSpecTest, OtherTextsAreInvalid) {
  const std::string long_word(65, 'a');
  for (const std::string& text :
       {std::string(), std::string("aes"), std::string("aes-xts"), std::string("-xts-plain64"),
        std::string("aes--plain64"), std::string("aes-xts-"), std::string("aes-xts-plain64:"),
        std::string("aes-xts-:sha256"), std::string("aes-cbc-essiv:sha256:x"),
        std::string("AES-xts-plain64"), std::string("aes-xts-plain64 "),
        std::string("aes-xts-plain\n"), std::string("capi:xts(aes)-plain64"),
        long_word + "-xts-plain64", "aes-" + long_word + "-plain64", "aes-xts-" + long_word}) {
    EXPECT_FALSE(CipherSpec::parse(text).ok()) << text;
  }
}

}  // namespace
}  // namespace ringdisk
