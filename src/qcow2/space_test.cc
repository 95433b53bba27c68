// SPDX-License-Identifier: Apache-2.0
// Storages that cannot grow: a request finds the last cluster, also while it is still on its way
// from its former owner, and a disk that is really full says so at once.
#include <gtest/gtest.h>

#include "async/scope.h"
#include "qcow2/image_stage_test.h"
#include "sim/model_run.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kCluster = 4096;
constexpr ByteCount kSize(4 << 20);  // two L2 tables
constexpr uint64_t kDeviceClusters = 64;
// Without header, refcount table, refcount block, L1 table and one L2 table.
constexpr uint64_t kDataClusters = kDeviceClusters - 5;

sim::SimDiskOptions small_device() {
  return sim::SimDiskOptions::block_device(ByteCount(kDeviceClusters * kCluster), 512);
}

GuestRange cluster_range(uint64_t first, uint64_t count) {
  return GuestRange(GuestOffset(first * kCluster), ByteCount(count * kCluster));
}

Task<void> write_cluster(DeviceQueue& queue, uint64_t cluster) {
  co_await write_stamped(queue, cluster * kCluster, kCluster, static_cast<uint8_t>(cluster));
}
Task<void> expect_cluster(DeviceQueue& queue, uint64_t cluster) {
  co_await expect_stamped(queue, cluster * kCluster, kCluster, static_cast<uint8_t>(cluster));
}

Task<void> fill(DeviceQueue& queue) {
  for (uint64_t i = 0; i < kDataClusters; ++i) co_await write_cluster(queue, i);
}

void expect_full(const Result<void>& result) {
  EXPECT_FALSE(result.ok());
  if (!result.ok()) {
    EXPECT_EQ(result.error().kind, ErrorKind::kNoSpace);
  }
}

Task<void> reuse_discarded(DeviceQueue& queue) {
  co_await fill(queue);
  for (uint64_t i = 0; i < 5; ++i) {
    co_await queue.discard(cluster_range(i, 1));
    co_await write_cluster(queue, 100 + i);
  }
  Result<void> full = co_await write_cluster(queue, 200).result();
  expect_full(full);
  for (uint64_t i = 0; i < 5; ++i) co_await expect_cluster(queue, 100 + i);
  for (uint64_t i = 5; i < kDataClusters; ++i) co_await expect_cluster(queue, i);
}

TEST(SpaceTest, AClusterThatIsBeingFreedIsWaitedForBeforeADeviceCountsAsFull) {
  sim::for_each_seed(20, [](uint64_t seed) {
    ImageStage stage(TestImage(), kSize, small_device(), seed);
    EXPECT_EQ(stage.text_of(stage.use(&reuse_discarded)), "");
    stage.check();
  });
}

// A write-back, and then a pass that frees, are under way when the write comes.
Task<void> reuse_during_flush(DeviceQueue& queue) {
  co_await fill(queue);
  for (uint64_t i = 0; i < 5; ++i) {
    co_await queue.discard(cluster_range(i, 1));
    auto one = [&queue, i](size_t which) {
      return which == 0 ? queue.flush() : write_cluster(queue, 100 + i);
    };
    co_await when_all(2, one);
  }
}

TEST(SpaceTest, AndWhileAFlushIsUnderWay) {
  sim::for_each_seed(50, [](uint64_t seed) {
    ImageStage stage(TestImage(), kSize, small_device(), seed);
    EXPECT_EQ(stage.text_of(stage.use(&reuse_during_flush)), "");
    stage.check();
  });
}

// The second half of the disk has no L2 table yet.
Task<void> reuse_for_a_table(DeviceQueue& queue) {
  co_await fill(queue);
  co_await queue.discard(cluster_range(7, 2));
  co_await write_cluster(queue, 600);
  co_await expect_cluster(queue, 600);
}
Task<void> reuse_for_a_table_of_zeros(DeviceQueue& queue) {
  co_await fill(queue);
  co_await queue.discard(cluster_range(7, 1));
  ZeroOptions options;
  co_await queue.write_zeroes(cluster_range(600, 1), options);
  co_await expect_stamped(queue, 600 * kCluster, kCluster, 0);
}

TEST(SpaceTest, TablesWaitForItToo) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestImage image;
    image.backing_bytes = kSize.value();
    ImageStage written(image, kSize, small_device(), seed);
    EXPECT_EQ(written.text_of(written.use(&reuse_for_a_table)), "");
    written.check();
    ImageStage zeroed(image, kSize, small_device(), seed);
    EXPECT_EQ(zeroed.text_of(zeroed.use(&reuse_for_a_table_of_zeros)), "");
    zeroed.check();
  });
}

Task<void> run_into_the_end(DeviceQueue& queue, const sim::SimFaults& flushes) {
  co_await fill(queue);
  co_await queue.flush();
  const uint64_t before = flushes.requests;
  for (uint64_t i = 0; i < 3; ++i) {
    Result<void> full = co_await write_cluster(queue, 200 + i).result();
    expect_full(full);
    co_await write_cluster(queue, i);  // what has its place goes on
  }
  EXPECT_EQ(flushes.requests, before);
}

TEST(SpaceTest, ADeviceThatIsReallyFullSaysSoWithoutWaitingForAnything) {
  ImageStage stage(TestImage(), kSize, small_device());
  stage.faults.only = sim::SimOperation::kFlush;
  auto body = [&stage](DeviceQueue& queue) { return run_into_the_end(queue, stage.faults); };
  EXPECT_EQ(stage.text_of(stage.use(body)), "");
  stage.check();
}

// A device with room for every cluster of the disk once, and for nothing else: whatever is
// discarded, zeroed and written again by three shards, there is always a place.
TEST(SpaceTest, ADeviceWithRoomForTheWholeDiskIsNeverFull) {
  sim::for_each_seed(40, [](uint64_t seed) {
    TestImage image;
    image.cluster_bits = static_cast<uint32_t>(12 + seed % 4);
    sim::ModelTestOptions options;
    options.size = ByteCount(1 << 20);
    options.workload.writes = 50;
    options.workload.zeroes = 20;
    options.workload.discards = 20;
    options.workload.flushes = 2;
    const Geometry geometry(image.cluster_bits, image.refcount_order);
    const uint64_t tables = geometry.l1_entries_for(options.size);
    const uint64_t clusters = 4 + tables + geometry.guest_clusters(options.size);
    options.disk =
        sim::SimDiskOptions::block_device(ByteCount(clusters << image.cluster_bits), 512);
    run_model_test(test_format(image), seed, options);
  });
}

}  // namespace
}  // namespace ringdisk::qcow2
