// SPDX-License-Identifier: Apache-2.0
// Compaction on the simulator: every geometry, snapshots, backing images, compressed clusters; the
// power failing anywhere in it; every request of it failing once; damage that it must not touch.
#include <gtest/gtest.h>

#include "qcow2/compact/compact_stage_test.h"

namespace ringdisk::qcow2 {
namespace {

// Several passes: tables move again and again.
CompactLimits scattered_limits() {
  CompactLimits limits;
  limits.tail_clusters = 1000;
  return limits;
}

TEST(CompactTest, MovesEverythingDownInEveryGeometry) {
  sim::for_each_seed(40, [](uint64_t seed) {
    HolesOptions options;
    options.snapshots = seed % 2 == 0;
    CompactStage stage(drawn_edited_image_or_extended(seed), seed, options,
                       sim::SimDiskOptions::file());
    expect_compacted(stage, small_limits(seed));
    stage.expect_writable(seed + 1);
  });
}

TEST(CompactTest, AFileOfSingleClustersHasNoHoleLeft) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestImage image = drawn_edited_image(seed);
    image.cluster_bits = 12 + seed % 3;  // so that every table fits a cluster
    HolesOptions options;
    options.snapshots = seed % 2 == 0;
    CompactStage stage(image, seed, options, sim::SimDiskOptions::file());
    expect_compacted(stage, CompactLimits());
    EXPECT_EQ(stage.file_clusters(), used_clusters(stage.disk));
    // A second time there is nothing to gain.
    const uint64_t size = stage.disk.size();
    expect_compacted(stage, CompactLimits());
    EXPECT_EQ(stage.disk.size(), size);
  });
}

TEST(CompactTest, RefcountTablesBehindEverythingMoveToo) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestImage image = drawn_edited_image_or_extended(seed);
    HolesOptions options;
    options.rebuilt = true;
    CompactStage stage(image, seed, options, sim::SimDiskOptions::file());
    expect_compacted(stage, small_limits(seed));
    stage.expect_writable(seed + 1);
  });
}

TEST(CompactTest, MovesDirtyBitmapsToo) {
  sim::for_each_seed(30, [](uint64_t seed) {
    TestImage image = drawn_edited_image_or_extended(seed);
    image.version = 3;
    HolesOptions options;
    options.bitmaps = true;
    options.snapshots = seed % 2 == 0;
    options.rebuilt = seed % 3 == 0;
    CompactStage stage(image, seed, options, sim::SimDiskOptions::file());
    EXPECT_GT(stage.model.bitmaps.dirty.size(), 3u);
    expect_compacted(stage, small_limits(seed));
    stage.expect_writable(seed + 1);
    // With room for all of it at once no hole is left, long directory or not.
    expect_compacted(stage, CompactLimits());
    EXPECT_EQ(stage.file_clusters(), used_clusters(stage.disk));
  });
}

// In every second cluster a hole, and tables of several clusters behind them all.
TEST(CompactTest, MakesRoomForTablesOfSeveralClusters) {
  sim::for_each_seed(6, [](uint64_t seed) {
    TestImage image;
    image.cluster_bits = 9;
    image.refcount_order = 4 + seed % 3;
    HolesOptions options;
    options.size = ByteCount(3 << 20);
    options.filled = true;
    options.rounds = 1;
    options.rebuilt = seed % 2 == 0;
    options.scattered = true;
    options.grown_size = ByteCount(16 << 20);
    options.bitmaps = seed % 2 == 0;
    CompactStage stage(image, seed, options, sim::SimDiskOptions::file());
    const Result<CompactReport> done =
        stage.compact(seed % 3 == 0 ? scattered_limits() : CompactLimits());
    ASSERT_TRUE(done.ok()) << stage.world.diagnostics().describe(done.error());
    for (const std::string& obstacle : done.value().obstacles) ADD_FAILURE() << obstacle;
    // A table that has come down this far finds no hole of its length before it.
    const uint64_t l1_clusters = 8;
    EXPECT_LT(stage.file_clusters(), used_clusters(stage.disk) + l1_clusters);
    stage.expect_sound();
    stage.expect_writable(seed + 1);
  });
}

TEST(CompactTest, KeepsWhatCompressedClustersHold) {
  sim::for_each_seed(40, [](uint64_t seed) {
    TestImage image = drawn_edited_image_or_extended(seed);
    image.refcount_order = seed % 7;
    if (image.version == 3 && seed % 2 == 0) image.compression = Compression::kZstd;
    HolesOptions options;
    options.compressed = true;
    options.snapshots = image.refcount_order >= 3;
    CompactStage stage(image, seed, options, sim::SimDiskOptions::file());
    expect_compacted(stage, small_limits(seed));
    stage.expect_writable(seed + 1);
  });
}

TEST(CompactTest, LeavesABackingImageAndADeviceAlone) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestImage image = drawn_edited_image_or_extended(seed);
    image.backing_bytes = seed % 2 == 0 ? 300 << 10 : 0;
    const sim::SimDiskOptions device =
        sim::SimDiskOptions::block_device(ByteCount(16 << 20), seed % 3 == 0 ? 4096 : 512);
    const bool is_device = seed % 4 == 0;
    CompactStage stage(image, seed, HolesOptions(),
                       is_device ? device : sim::SimDiskOptions::file());
    const uint64_t size = stage.disk.size();
    const Result<CompactReport> done = stage.compact(small_limits(seed));
    ASSERT_TRUE(done.ok()) << stage.world.diagnostics().describe(done.error());
    EXPECT_LE(done.value().bytes_after, done.value().bytes_before);
    if (is_device) {
      EXPECT_EQ(stage.disk.size(), size);
    }
    stage.expect_sound();
    stage.expect_writable(seed + 1);
  });
}

TEST(CompactTest, ACancelKeepsWhatWasGained) {
  CompactStage stage(TestImage(), 3, HolesOptions(), sim::SimDiskOptions::file());
  CancelSource cancel;
  cancel.cancel();
  const Result<CompactReport> done = stage.compact(CompactLimits(), cancel.token());
  ASSERT_TRUE(done.ok());
  EXPECT_TRUE(done.value().is_cancelled);
  stage.expect_sound();
}

// A leak may be something that nobody here knows of: it stays, and is told.
TEST(CompactTest, WhatNothingPointsAtStaysWhereItIs) {
  TestImage image;
  CompactStage stage(image, 5, HolesOptions(), sim::SimDiskOptions::file());
  const uint64_t end = stage.disk.size();
  const uint64_t block_at = 2 << image.cluster_bits;
  std::byte counter[2];
  store_be16(counter, 1);
  stage.disk.poke(block_at + (end >> image.cluster_bits) * 2, counter);
  const std::byte mark[1] = {std::byte{42}};
  stage.disk.poke(end, mark);
  const Result<CompactReport> done = stage.compact(CompactLimits());
  ASSERT_TRUE(done.ok()) << stage.world.diagnostics().describe(done.error());
  ASSERT_EQ(done.value().obstacles.size(), 1u);
  EXPECT_NE(done.value().obstacles[0].find("check -r leaks"), std::string::npos);
  std::byte there[1];
  stage.disk.peek(end, there);
  EXPECT_EQ(there[0], mark[0]);
  EXPECT_GT(stage.disk.size(), end);
}

// A cluster in use that counts as free is a hole that must not be filled.
TEST(CompactTest, ARefcountThatIsTooLowStopsIt) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestImage image;
    HolesOptions options;
    options.snapshots = false;
    CompactStage stage(image, seed, options, sim::SimDiskOptions::file());
    const uint64_t block_at = 2 << image.cluster_bits;
    const uint64_t clusters = stage.file_clusters();
    Random random(seed);
    for (;;) {
      const uint64_t cluster = 4 + random.below(clusters - 4);
      std::byte counter[2];
      stage.disk.peek(block_at + cluster * 2, counter);
      if (load_be16(counter) != 1) continue;
      store_be16(counter, 0);
      stage.disk.poke(block_at + cluster * 2, counter);
      break;
    }
    const Result<CompactReport> done = stage.compact(CompactLimits());
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().kind, ErrorKind::kCorrupt);
    auto look = [&](Shard&) {
      return expect_holes_model(stage.world.world(), image, stage.open, stage.model);
    };
    EXPECT_TRUE(stage.world.run(look).ok());
  });
}

// --- crashes and faults

TEST(CompactCrashTest, ACrashAnywhereLeaksAtWorst) {
  sim::for_each_seed(12, [](uint64_t seed) {
    TestImage image = drawn_edited_image_or_extended(seed);
    HolesOptions options;
    options.snapshots = seed % 3 != 0;
    options.compressed = seed % 2 == 0;
    if (seed % 4 == 1) image.backing_bytes = 300 << 10;
    options.bitmaps = image.version >= 3 && seed % 2 == 1;
    CompactCrash scenario(image, options, seed);
    sim::CrashSweepOptions sweep;
    sweep.points = 40;
    if (seed % 5 == 0) {
      sweep.disks = {sim::SimDiskOptions::block_device(ByteCount(8 << 20), 512)};
    }
    EXPECT_GT(run_crash_sweep(scenario, seed, sweep), 0u);
  });
}

// Blocks that count each other's new places, with a table of several sectors.
TEST(CompactCrashTest, ACrashWhileRefcountBlocksMoveLeaksAtWorst) {
  sim::for_each_seed(2, [](uint64_t seed) {
    TestImage image;
    image.cluster_bits = 9;
    image.refcount_order = 6;
    HolesOptions options;
    options.size = ByteCount(3 << 20);
    options.filled = true;
    options.rebuilt = true;
    options.rounds = 2;
    options.scattered = seed % 2 == 0;
    options.bitmaps = true;
    CompactCrash scenario(image, options, seed);
    sim::CrashSweepOptions sweep;
    sweep.points = 15;
    EXPECT_GT(run_crash_sweep(scenario, seed, sweep), 0u);
  });
}

TEST(CompactFaultTest, EveryFailureIsToldAndLosesNothing) {
  sim::for_each_seed(3, [](uint64_t seed) {
    TestImage image = drawn_edited_image(seed);
    image.cluster_bits = 11 + seed % 3;
    HolesOptions options;
    options.compressed = seed % 2 == 0;
    options.bitmaps = image.version >= 3;
    auto run = [&](uint64_t n) { return run_compaction_with_fault(image, options, seed, n); };
    EXPECT_GT(sim::sweep_faults(5000, run), 10u);
  });
}

}  // namespace
}  // namespace ringdisk::qcow2
