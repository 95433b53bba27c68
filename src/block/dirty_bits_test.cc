// SPDX-License-Identifier: Apache-2.0
// Bits against a model of one bool a granule: what is marked is found, whatever the words' edges.
#include "block/dirty_bits.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "base/random.h"
#include "sim/seeds.h"

namespace ringdisk {
namespace {

constexpr uint32_t kBits = 9;
constexpr uint64_t kGranule = 1 << kBits;

GuestRange range(uint64_t at, uint64_t length) {
  return GuestRange(GuestOffset(at), ByteCount(length));
}

std::vector<bool> granules_of(const DirtyBits& bits) {
  std::vector<bool> granules;
  for (GuestRange rest(GuestOffset(0), bits.size()); !rest.empty();) {
    const DirtyBits::Stretch stretch = bits.find_stretch(rest);
    const uint64_t end = rest.offset.value() + stretch.length.value();
    while (granules.size() * bits.granularity() < end) granules.push_back(stretch.is_dirty);
    rest = GuestRange::between(rest.offset + stretch.length, rest.end());
  }
  return granules;
}

TEST(DirtyBitsTest, FindsWhatWasMarked) {
  sim::for_each_seed(40, [](uint64_t seed) {
    Random random(seed);
    const ByteCount size(1 + random.below(400 * kGranule));
    DirtyBits bits(size, kBits);
    std::vector<bool> model((size.value() + kGranule - 1) / kGranule);
    for (int i = 0; i < 20; ++i) {
      const uint64_t at = random.below(size.value());
      const uint64_t length = 1 + random.below(random.chance(20) ? size.value() : 3 * kGranule);
      bits.mark(range(at, length));
      const uint64_t end = std::min(at + length, size.value());
      for (uint64_t one = at / kGranule; one * kGranule < end; ++one) model[one] = true;
      EXPECT_EQ(granules_of(bits), model);
    }
  });
}

TEST(DirtyBitsTest, AStretchEndsWithItsRange) {
  DirtyBits bits(ByteCount(100 * kGranule), kBits);
  bits.mark(range(5 * kGranule, 1));
  DirtyBits::Stretch stretch = bits.find_stretch(range(100, 1000));
  EXPECT_EQ(stretch.length, ByteCount(1000));
  EXPECT_FALSE(stretch.is_dirty);
  stretch = bits.find_stretch(range(5 * kGranule + 7, 10 * kGranule));
  EXPECT_EQ(stretch.length, ByteCount(kGranule - 7));
  EXPECT_TRUE(stretch.is_dirty);
}

TEST(DirtyBitsTest, ComesBackFromItsBytes) {
  sim::for_each_seed(20, [](uint64_t seed) {
    Random random(seed);
    const ByteCount size(1 + random.below(9000 * kGranule));
    DirtyBits bits(size, kBits);
    for (int i = 0; i < 10; ++i) bits.mark(range(random.below(size.value()), 70 * kGranule));
    const uint64_t bytes_needed = (size.value() / kGranule / 8 + 1 + 511) / 512 * 512;
    std::vector<std::byte> bytes(bytes_needed, std::byte{0xee});
    for (uint64_t at = 0; at < bytes.size(); at += 512) {
      bits.store(at, MutableBytes(bytes).subspan(at, 512));
    }
    // Bytes beyond the last bit are no bits.
    const uint64_t granules = (size.value() + kGranule - 1) / kGranule;
    for (uint64_t at = (granules + 7) / 8; at < bytes.size(); ++at) {
      EXPECT_EQ(bytes[at], std::byte{0});
      bytes[at] = std::byte{0xff};
    }
    DirtyBits again(size, kBits);
    for (uint64_t at = 0; at < bytes.size(); at += 512)
      again.load(at, Bytes(bytes).subspan(at, 512));
    EXPECT_EQ(granules_of(again), granules_of(bits));
  });
}

TEST(DirtyBitsTest, TellsWhatIsAllTheSame) {
  DirtyBits bits(ByteCount(512 * 8 * kGranule + 10 * kGranule), kBits);
  using Uniform = DirtyBits::Uniform;
  EXPECT_EQ(bits.uniform(0, 512), Uniform::kClean);
  bits.mark(range(0, 512 * 8 * kGranule));
  EXPECT_EQ(bits.uniform(0, 512), Uniform::kDirty);
  EXPECT_EQ(bits.uniform(512, 512), Uniform::kClean);
  bits.mark(range(512 * 8 * kGranule, kGranule));
  EXPECT_EQ(bits.uniform(512, 512), Uniform::kNo);
  bits.mark(range(512 * 8 * kGranule, 10 * kGranule));
  EXPECT_EQ(bits.uniform(512, 512), Uniform::kDirty);  // the last bits that there are
}

TEST(DirtyBitsTest, AnotherSizeKeepsWhatBothHave) {
  DirtyBits bits(ByteCount(100 * kGranule), kBits);
  bits.mark(range(60 * kGranule, 40 * kGranule));
  bits.resize(ByteCount(70 * kGranule));
  bits.resize(ByteCount(200 * kGranule));
  std::vector<bool> wanted(200);
  for (size_t i = 60; i < 70; ++i) wanted[i] = true;
  EXPECT_EQ(granules_of(bits), wanted);
}

TEST(DirtyBitsTest, MergesAcrossGranularities) {
  const ByteCount size(64 * kGranule + 5);
  DirtyBits fine(size, kBits), coarse(size, kBits + 3);
  fine.mark(range(9 * kGranule, 1));
  fine.mark(range(64 * kGranule, 5));
  coarse.mark(range(40 * kGranule, 1));
  DirtyBits of_fine(size, kBits);
  of_fine.merge(fine);
  of_fine.merge(coarse);
  for (uint64_t one = 0; one < 65; ++one) {
    const bool wanted = one == 9 || one == 64 || (one >= 40 && one < 48);
    EXPECT_EQ(granules_of(of_fine)[one], wanted) << one;
  }
  coarse.merge(fine);
  EXPECT_EQ(granules_of(coarse), std::vector<bool>({0, 1, 0, 0, 0, 1, 0, 0, 1}));
}

TEST(DirtyBitsTest, TellsOfChangesOnce) {
  DirtyBits bits(ByteCount(10 * kGranule), kBits);
  EXPECT_FALSE(bits.take_changed());
  bits.mark(range(0, 1));
  EXPECT_TRUE(bits.take_changed());
  bits.mark(range(1, 1));  // the same granule
  EXPECT_FALSE(bits.take_changed());
}

TEST(DirtyBitsTest, ThreadsLoseNoBitOfEachOther) {
  constexpr uint64_t kThreads = 3, kGranules = 3000;
  DirtyBits bits(ByteCount(kGranules * kGranule), kBits);
  std::vector<std::thread> threads;
  for (uint64_t own = 0; own < kThreads; ++own) {
    threads.emplace_back([&bits, own] {
      for (uint64_t one = own; one < kGranules; one += kThreads)
        bits.mark(range(one * kGranule, 1));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(granules_of(bits), std::vector<bool>(kGranules, true));
}

}  // namespace
}  // namespace ringdisk
