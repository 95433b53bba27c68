// SPDX-License-Identifier: Apache-2.0
// Base64 against the vectors of RFC 4648, and what is none.
#include "crypto/base64.h"

#include <gtest/gtest.h>

namespace ringdisk {
namespace {

TEST(Base64, MatchesPublishedVectors) {
  constexpr std::pair<const char*, const char*> kVectors[] = {
      {"", ""},
      {"f", "Zg=="},
      {"fo", "Zm8="},
      {"foo", "Zm9v"},
      {"foob", "Zm9vYg=="},
      {"fooba", "Zm9vYmE="},
      {"foobar", "Zm9vYmFy"},
  };
  for (const auto& [plain, encoded] : kVectors) {
    EXPECT_EQ(encode_base64(as_bytes(plain)), encoded);
    const std::optional<std::vector<std::byte>> decoded = decode_base64(encoded);
    ASSERT_TRUE(decoded.has_value()) << encoded;
    EXPECT_EQ(as_text(*decoded), plain);
  }
}

TEST(Base64, KnowsEveryByte) {
  std::vector<std::byte> all(256);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::byte>(i);
  const std::optional<std::vector<std::byte>> back = decode_base64(encode_base64(all));
  ASSERT_TRUE(back.has_value());
  EXPECT_TRUE(*back == all);
}

TEST(Base64, RefusesWhatIsNone) {
  for (const char* text : {"Zg=", "Zg", "Z", "====", "Z===", "Zg==Zg==", "Z\ng=", "Zh==", "Zm9=",
                           "Zm-v", "Zm 9", "=m9v"}) {
    EXPECT_FALSE(decode_base64(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace ringdisk
