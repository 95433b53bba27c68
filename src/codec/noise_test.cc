// SPDX-License-Identifier: Apache-2.0
// What is called noise cannot be deflated to anything worth having, and what can is not called so.
#include "codec/noise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/random.h"
#include "codec/deflate.h"
#include "sim/seeds.h"

namespace ringdisk {
namespace {

std::vector<std::byte> random_block(size_t size, uint64_t seed) {
  Random random(seed);
  std::vector<std::byte> block(size);
  for (std::byte& byte : block) byte = static_cast<std::byte>(random.next());
  return block;
}

TEST(NoiseTest, RandomBytesAreNoiseAndDoNotShrink) {
  Deflater deflater(9);
  sim::for_each_seed(60, [&](uint64_t seed) {
    const size_t size = size_t{4096} << (seed % 6);
    const std::vector<std::byte> block = random_block(size, seed);
    std::vector<std::byte> stream(size);
    EXPECT_TRUE(is_noise(block)) << size;
    EXPECT_EQ(deflater.compress(block, stream).value(), 0u);
  });
  EXPECT_TRUE(is_noise(random_block(size_t{2} << 20, 1)));
}

TEST(NoiseTest, SmallBlocksAreTriedAnyway) {
  EXPECT_FALSE(is_noise({}));
  EXPECT_FALSE(is_noise(random_block(2048, 1)));
}

TEST(NoiseTest, ASkewIsNoNoise) {
  sim::for_each_seed(20, [](uint64_t seed) {
    std::vector<std::byte> block = random_block(65536, seed);
    for (size_t i = 0; i < block.size(); i += 4) block[i] &= std::byte{0x7f};
    EXPECT_FALSE(is_noise(block));
  });
  EXPECT_FALSE(is_noise(std::vector<std::byte>(65536)));
}

// Wherever the second copy lies, aligned or not.
TEST(NoiseTest, AStretchThatComesTwiceIsNoNoise) {
  sim::for_each_seed(100, [](uint64_t seed) {
    Random random(seed);
    std::vector<std::byte> block = random_block(65536, seed);
    constexpr size_t kStretch = 1500;
    const size_t from = random.below(30000), to = 32000 + random.below(32000);
    std::copy_n(block.begin() + static_cast<ptrdiff_t>(from), kStretch,
                block.begin() + static_cast<ptrdiff_t>(to));
    EXPECT_FALSE(is_noise(block)) << from << " " << to;
  });
}

}  // namespace
}  // namespace ringdisk
