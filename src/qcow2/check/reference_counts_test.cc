// SPDX-License-Identifier: Apache-2.0
// What is skipped holds no count, and no count is skipped.
#include "qcow2/check/reference_counts.h"

#include <gtest/gtest.h>

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kChunk = CountCells<uint16_t>::kChunkCells;

TEST(ReferenceCountsTest, WhatNobodyReferredToIsSkippedUpToTheNextChunk) {
  for (const bool is_wide : {false, true}) {
    ReferenceCounts counts;
    constexpr uint64_t kFirst = 1000;
    counts.open_window(ClusterIndex(kFirst), 3 * kChunk + 1, is_wide);
    const ClusterIndex counted(kFirst + 2 * kChunk - 1);
    counts.add(counted);
    const ClusterIndex second(kFirst + kChunk), third(kFirst + 2 * kChunk);
    EXPECT_EQ(counts.skip_uncounted(ClusterIndex(kFirst)), second);
    EXPECT_EQ(counts.skip_uncounted(ClusterIndex(kFirst + kChunk - 1)), second);
    EXPECT_EQ(counts.skip_uncounted(second), second) << "a chunk with a count is looked through";
    EXPECT_EQ(counts.skip_uncounted(counted), counted);
    EXPECT_EQ(counts.skip_uncounted(third), ClusterIndex(kFirst + 3 * kChunk));
    EXPECT_EQ(counts.skip_uncounted(ClusterIndex(5)), ClusterIndex(5)) << "outside of the window";
    EXPECT_EQ(counts.count(counted), 1u);
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
