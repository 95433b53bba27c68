// SPDX-License-Identifier: Apache-2.0
// Allocations that fail half-way: the clusters go back, the lock is gone, the image goes on.
#include <gtest/gtest.h>

#include "qcow2/image_stage_test.h"
#include "sim/fault_sweep.h"

namespace ringdisk::qcow2 {
namespace {

// The smallest clusters and hardly any memory for tables: a slice maps 32 KiB, 64 of them stay.
constexpr uint64_t kCluster = 512;
constexpr uint64_t kSliceBytes = 64 * kCluster;
constexpr ByteCount kSize(16 << 20);

TestImage image_of_many_slices() {
  TestImage image;
  image.cluster_bits = 9;
  image.slice_memory = "512";
  return image;
}

constexpr uint64_t kSlices = 100;

Task<void> write_one_cluster_a_slice(DeviceQueue& queue) {
  for (uint64_t i = 0; i < kSlices; ++i) {
    co_await write_stamped(queue, i * kSliceBytes, kCluster, static_cast<uint8_t>(i));
  }
}

// Tries again as long as the planned failure has not been met.
template <class Try>
Task<void> until_it_works(Try attempt) {
  Result<void> done = co_await attempt().result();
  if (!done.ok()) {
    EXPECT_EQ(done.error().errno_value, EIO);
    co_await attempt();
  }
}

// Allocates the second cluster of the first slice, which leaves memory meanwhile.
Task<void> allocate_and_lose_the_slice(FormatQueue& queue) {
  const auto range = GuestRange::between(GuestOffset(kCluster), GuestOffset(2 * kCluster));
  std::optional<Allocation> allocation = co_await queue.begin_allocation(range);
  if (!allocation) co_return;
  for (uint64_t i = 1; i < kSlices; ++i) {
    auto load = [&queue, i] { return queue.load_map(GuestOffset(i * kSliceBytes)); };
    Result<void> loaded = co_await until_it_works(load).result();
    EXPECT_TRUE(loaded.ok());
  }
  co_await queue.finish_allocation(*allocation);
}

Task<void> work(Shard& shard, ImageStage& stage) {
  OpenedFormat opened = co_await open_test_format(stage.world.world(), stage.storage(), false,
                                                  stage.image.slice_memory);
  std::unique_ptr<FormatQueue> queue = co_await opened.node->open_queue(shard);
  auto allocate = [&queue] { return allocate_and_lose_the_slice(*queue); };
  Result<void> done = co_await until_it_works(allocate).result();
  Mapping mapping;
  const auto range = GuestRange::between(GuestOffset(kCluster), GuestOffset(2 * kCluster));
  EXPECT_TRUE(queue->try_map(range, MapPurpose::kWrite, mapping));
  EXPECT_EQ(mapping.kind, MappingKind::kData);
  mapping.pin.release();
  queue.reset();
  co_await opened.node->close();
  co_await std::move(done);
}

// Every read in the life of an allocation fails once, in turn. Nobody holds the clusters
// afterwards, what comes later to them is served, and nothing leaks: a read that fails ends no
// image.
TEST(AllocationTest, NoFailedReadLeaksAClusterOrALock) {
  const uint64_t runs = sim::sweep_faults(500, [](uint64_t n) {
    ImageStage stage(image_of_many_slices(), kSize, sim::SimDiskOptions::file());
    EXPECT_EQ(stage.text_of(stage.use(&write_one_cluster_a_slice)), "");
    constexpr uint64_t kReadsOfOpen = 3;  // header, L1 table, refcount table
    stage.faults.only = sim::SimOperation::kRead;
    stage.faults.requests = 0;
    stage.faults.fail_at = kReadsOfOpen + n;
    auto steps = [&stage](Shard& shard) { return work(shard, stage); };
    EXPECT_EQ(stage.text_of(stage.world.run(steps)), "");
    stage.check();
    return stage.faults.failed != 0;
  });
  EXPECT_GT(runs, kSlices);
}

}  // namespace
}  // namespace ringdisk::qcow2
