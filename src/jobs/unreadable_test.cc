// SPDX-License-Identifier: Apache-2.0
// Neighbours in any order, and more than can be listed.
#include "jobs/unreadable.h"

#include <gtest/gtest.h>

namespace ringdisk {
namespace {

GuestRange range(uint64_t begin, uint64_t end) {
  return GuestRange::between(GuestOffset(begin), GuestOffset(end));
}

Error failure(int errno_value) { return Error::from_errno(errno_value, "read"); }

TEST(UnreadableRangesTest, NeighboursBecomeOneWhateverTheirOrder) {
  UnreadableRanges ranges;
  ranges.add(range(4096, 8192), failure(5));
  ranges.add(range(0, 512), failure(6));
  ranges.add(range(512, 1024), failure(7));
  ranges.add(range(2048, 4096), failure(8));
  ASSERT_EQ(ranges.first().size(), 2u);
  EXPECT_EQ(ranges.first()[0].range, range(0, 1024));
  EXPECT_EQ(ranges.first()[0].error.errno_value, 6) << "that of its first byte";
  EXPECT_EQ(ranges.first()[1].range, range(2048, 8192));
  EXPECT_EQ(ranges.first()[1].error.errno_value, 8);
  ranges.add(range(1024, 2048), failure(9));
  ASSERT_EQ(ranges.first().size(), 1u);
  EXPECT_EQ(ranges.first()[0].range, range(0, 8192));
  EXPECT_EQ(ranges.bytes(), 8192u);
}

TEST(UnreadableRangesTest, MoreThanCanBeShownAreCounted) {
  UnreadableRanges ranges;
  const uint64_t count = UnreadableRanges::kShownMax + 100;
  for (uint64_t i = 0; i < count; ++i) ranges.add(range(i * 1024, i * 1024 + 512), failure(5));
  EXPECT_EQ(ranges.first().size(), UnreadableRanges::kShownMax);
  EXPECT_EQ(ranges.bytes(), count * 512);
  UnreadableRanges all;
  all.add(range(512, 1024), failure(6));
  all.add_all(ranges);
  EXPECT_EQ(all.bytes(), ranges.bytes() + 512);
  EXPECT_EQ(all.first()[0].range, range(0, 1536));
}

}  // namespace
}  // namespace ringdisk
