// SPDX-License-Identifier: Apache-2.0
// Finding zeros: one byte anywhere is seen, at every alignment and length, and nothing beyond the
// end is looked at.
#include "codec/zero_detect.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/random.h"
#include "sim/seeds.h"

namespace ringdisk {
namespace {

TEST(IsZeroTest, OneByteAnywhereIsSeen) {
  std::vector<std::byte> memory(300);
  for (size_t begin = 0; begin < 20; ++begin) {
    for (size_t length = 0; length < 140; ++length) {
      MutableBytes bytes = MutableBytes(memory).subspan(begin, length);
      ASSERT_TRUE(is_zero(bytes)) << begin << " " << length;
      for (size_t at = 0; at < length; ++at) {
        bytes[at] = std::byte{0x80};
        ASSERT_FALSE(is_zero(bytes)) << begin << " " << length << " " << at;
        bytes[at] = std::byte{0};
      }
    }
  }
}

TEST(IsZeroTest, WhatLiesAroundDoesNotMatter) {
  std::vector<std::byte> memory(200, std::byte{0xff});
  for (size_t length = 0; length <= 100; ++length) {
    MutableBytes bytes = MutableBytes(memory).subspan(50, length);
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
    EXPECT_TRUE(is_zero(bytes)) << length;
  }
}

TEST(IsZeroTest, APatternThatRepeatsEverySixteenBytesIsNotZero) {
  std::vector<std::byte> memory(4096);
  for (size_t at = 0; at < memory.size(); ++at) memory[at] = static_cast<std::byte>(at % 16);
  EXPECT_FALSE(is_zero(memory));
  std::fill(memory.begin(), memory.end(), std::byte{7});
  EXPECT_FALSE(is_zero(memory));
  std::fill(memory.begin(), memory.end(), std::byte{0});
  EXPECT_TRUE(is_zero(memory));
  memory.back() = std::byte{1};
  EXPECT_FALSE(is_zero(memory));
}

// Byte by byte, as the header says it.
ZeroRun slow_run(Bytes bytes, size_t granule) {
  auto zero_at = [&](size_t at) {
    Bytes one = bytes.subspan(at, std::min(granule, bytes.size() - at));
    return std::all_of(one.begin(), one.end(), [](std::byte b) { return b == std::byte{0}; });
  };
  const bool zero = zero_at(0);
  size_t length = 0;
  while (length < bytes.size() && zero_at(length) == zero) {
    length += std::min(granule, bytes.size() - length);
  }
  return {length, zero};
}

TEST(FindZeroRunTest, GivesTheLongestPrefixOfOneKind) {
  sim::for_each_seed(300, [](uint64_t seed) {
    Random random(seed);
    const size_t granule = size_t{1} << random.below(10);
    // Its own memory, so that a byte too far is seen by the sanitizer.
    std::vector<std::byte> memory(1 + random.below(granule * 6));
    for (size_t at = 0; at < memory.size(); at += granule) {
      if (random.chance(40))
        memory[std::min(memory.size() - 1, at + random.below(granule))] = std::byte{1};
    }
    for (Bytes rest = memory; !rest.empty();) {
      const ZeroRun found = find_zero_run(rest, granule), wanted = slow_run(rest, granule);
      ASSERT_EQ(found.length, wanted.length);
      ASSERT_EQ(found.zero, wanted.zero);
      rest = rest.subspan(found.length);
    }
  });
}

TEST(FindZeroRunDeathTest, NothingHasNoRun) {
  EXPECT_DEATH(static_cast<void>(find_zero_run(Bytes(), 512)), "CHECK failed");
}

}  // namespace
}  // namespace ringdisk
