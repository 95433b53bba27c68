// SPDX-License-Identifier: Apache-2.0
// Offsets, counts and ranges: what compiles, what it gives, and what is a bug.
#include "base/units.h"

#include <gtest/gtest.h>

#include <concepts>

namespace ringdisk {
namespace {

template <class A, class B>
concept CanAdd = requires(A a, B b) { a + b; };
template <class A, class B>
concept CanSubtract = requires(A a, B b) { a - b; };
template <class A, class B>
concept CanCompare = requires(A a, B b) { a < b; };

static_assert(CanAdd<GuestOffset, ByteCount> && CanAdd<ByteCount, ByteCount>);
static_assert(!CanAdd<GuestOffset, GuestOffset> && !CanAdd<GuestOffset, uint64_t>);
static_assert(!CanAdd<ByteCount, GuestOffset>);
static_assert(CanSubtract<GuestOffset, GuestOffset> && !CanSubtract<GuestOffset, HostOffset>);
static_assert(CanCompare<HostOffset, HostOffset> && !CanCompare<HostOffset, GuestOffset>);
static_assert(!CanCompare<ByteCount, HostOffset> && !CanCompare<ByteCount, uint64_t>);
static_assert(!std::convertible_to<uint64_t, GuestOffset> &&
              !std::convertible_to<uint64_t, ByteCount>);
static_assert(!std::convertible_to<GuestOffset, HostOffset>);
static_assert(CanAdd<ClusterIndex, uint64_t> && !CanAdd<ClusterIndex, ClusterIndex>);
static_assert(!CanAdd<ClusterIndex, ByteCount>);

TEST(UnitsTest, ArithmeticOfOffsetsAndCounts) {
  const GuestOffset at(70000);
  EXPECT_EQ((at + ByteCount(1)).value(), 70001u);
  EXPECT_EQ((at - ByteCount(70000)).value(), 0u);
  EXPECT_EQ((GuestOffset(70010) - at).value(), 10u);
  EXPECT_EQ((ByteCount(100) * 3).value(), 300u);
  EXPECT_EQ((ByteCount(100) / 3).value(), 33u);
  EXPECT_EQ(ByteCount(100) / ByteCount(30), 3u);
  ByteCount count(5);
  count += ByteCount(3);
  count -= ByteCount(1);
  EXPECT_EQ(count.value(), 7u);
  EXPECT_EQ((ClusterIndex(4) + 3) - ClusterIndex(5), 2u);
}

TEST(UnitsTest, AlignmentOfOffsets) {
  const GuestOffset at(70000);
  EXPECT_EQ(at.align_down(65536).value(), 65536u);
  EXPECT_EQ(at.align_up(65536).value(), 131072u);
  EXPECT_EQ(at.offset_in(65536).value(), 4464u);
  EXPECT_FALSE(at.is_aligned(512));
  EXPECT_TRUE(GuestOffset(0).is_aligned(65536));
  EXPECT_EQ(GuestOffset(65536).align_up(65536).value(), 65536u);
  EXPECT_EQ(HostOffset(~uint64_t{0} - 511).align_up(512).value(), ~uint64_t{0} - 511);
}

TEST(UnitsDeathTest, OverflowIsABug) {
  EXPECT_DEATH(static_cast<void>(GuestOffset(~uint64_t{0}) + ByteCount(1)), "CHECK failed");
  EXPECT_DEATH(static_cast<void>(ByteCount(~uint64_t{0}) + ByteCount(1)), "CHECK failed");
  EXPECT_DEATH(static_cast<void>(ByteCount(1) - ByteCount(2)), "CHECK failed.*1 and 2");
  EXPECT_DEATH(static_cast<void>(GuestOffset(1) - GuestOffset(2)), "CHECK failed");
  EXPECT_DEATH(static_cast<void>(GuestOffset(~uint64_t{0}).align_up(512)), "CHECK failed");
}

GuestRange range(uint64_t begin, uint64_t end) {
  return GuestRange::between(GuestOffset(begin), GuestOffset(end));
}

TEST(RangeTest, ContainmentAndOverlap) {
  const GuestRange a = range(10, 20);
  EXPECT_EQ(a.end().value(), 20u);
  EXPECT_TRUE(a.contains(GuestOffset(10)));
  EXPECT_FALSE(a.contains(GuestOffset(20)));
  EXPECT_TRUE(a.contains(range(10, 20)));
  EXPECT_FALSE(a.contains(range(10, 21)));
  EXPECT_TRUE(a.overlaps(range(19, 30)));
  EXPECT_FALSE(a.overlaps(range(20, 30)));
  EXPECT_EQ(a.intersection(range(15, 30)), range(15, 20));
  EXPECT_TRUE(a.intersection(range(30, 40)).empty());
  EXPECT_TRUE(range(5, 5).empty());
}

TEST(RangeTest, WideningAndNarrowingToBlocks) {
  EXPECT_EQ(range(100, 700).widened(512), range(0, 1024));
  EXPECT_EQ(range(512, 1024).widened(512), range(512, 1024));
  EXPECT_EQ(range(100, 1700).narrowed(512), range(512, 1536));
  EXPECT_TRUE(range(100, 1000).narrowed(512).empty()) << "it holds no whole block";
  EXPECT_TRUE(range(513, 1535).narrowed(512).empty());
  EXPECT_TRUE(range(0, 1024).is_aligned(512));
  EXPECT_FALSE(range(0, 1000).is_aligned(512));
}

TEST(RangeDeathTest, AnAlignedRangeIsAligned) {
  const AlignedRange<GuestOffset> aligned(range(512, 1024), 512);
  EXPECT_EQ(aligned.range(), range(512, 1024));
  EXPECT_DEATH(AlignedRange<GuestOffset>(range(512, 1000), 512), "CHECK failed");
  EXPECT_DEATH(AlignedRange<GuestOffset>(range(0, 0), 3), "CHECK failed");
}

}  // namespace
}  // namespace ringdisk
