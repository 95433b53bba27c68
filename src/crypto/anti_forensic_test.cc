// SPDX-License-Identifier: Apache-2.0
// The splitter against vectors of an implementation in Python, and both ways.
#include "crypto/anti_forensic.h"

#include <gtest/gtest.h>

#include "crypto/hex_test.h"

namespace ringdisk {
namespace {

std::vector<std::byte> striped_material(size_t bytes) {
  std::vector<std::byte> material(bytes);
  for (size_t i = 0; i < bytes; ++i) material[i] = static_cast<std::byte>(i * 7 + i / 251);
  return material;
}

std::string merged(Hash hash, size_t key_bytes, uint32_t stripes) {
  std::vector<std::byte> key(key_bytes);
  EXPECT_TRUE(af_merge(hash, striped_material(key_bytes * stripes), stripes, key).ok());
  return to_hex(key);
}

TEST(AntiForensic, MergesAsAnotherImplementationDoes) {
  EXPECT_EQ(merged(Hash::kSha1, 32, 5),
            "27fa8600ea0c14668eea72326b95cbcca385ce87bac88dfbb15abffc89891f90");
  EXPECT_EQ(merged(Hash::kSha256, 32, 4000),
            "fa284a5203d2b3b029b7a534d3ff85b8f969131ad6a808242c7f953f11d757c7");
  EXPECT_EQ(merged(Hash::kSha256, 64, 7),
            "1b6c6cece5ad89b620e5bf37d6e6b6078abd4d7818fb4ad977e46d77af0b0f659ac2da1e74886fa91050e0"
            "e04f87ceac6bf2480baa87172c6e8736514470555e");
  EXPECT_EQ(merged(Hash::kSha512, 16, 3), "64a0e0c034b49c0f382a4e5e871d3137");
}

TEST(AntiForensic, WhatWasSplitComesBackAndEveryStripeIsNeeded) {
  const std::vector<std::byte> key =
      from_hex("000102030405060708090a0b0c0d0e0f10111213141516171819");
  std::vector<std::byte> material(key.size() * 20), back(key.size());
  ASSERT_TRUE(af_split(Hash::kSha1, key, 20, material).ok());
  ASSERT_TRUE(af_merge(Hash::kSha1, material, 20, back).ok());
  EXPECT_EQ(to_hex(back), to_hex(key));
  for (size_t at = 3; at < material.size(); at += key.size()) {
    material[at] ^= std::byte{1};
    ASSERT_TRUE(af_merge(Hash::kSha1, material, 20, back).ok());
    EXPECT_NE(to_hex(back), to_hex(key)) << "without the byte at " << at;
    material[at] ^= std::byte{1};
  }
}

TEST(AntiForensic, TwoSplitsOfAKeyDiffer) {
  const std::vector<std::byte> key(16, std::byte{0x5a});
  std::vector<std::byte> one(key.size() * 4), other(key.size() * 4);
  ASSERT_TRUE(af_split(Hash::kSha256, key, 4, one).ok());
  ASSERT_TRUE(af_split(Hash::kSha256, key, 4, other).ok());
  EXPECT_NE(to_hex(one), to_hex(other));
}

}  // namespace
}  // namespace ringdisk
