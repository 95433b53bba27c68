// SPDX-License-Identifier: Apache-2.0
// Slices that a shard read and that the home shard takes in: only while they are what the disk
// holds. What happens between the read and the hand-over is played step by step.
#include "qcow2/slice_reader.h"

#include <gtest/gtest.h>

#include "qcow2/image_stage_test.h"

namespace ringdisk::qcow2 {
namespace {

// The smallest clusters and hardly any memory for tables: a slice maps 32 KiB, 64 of them stay.
constexpr uint64_t kCluster = 512;
constexpr uint64_t kSliceBytes = 64 * kCluster;
constexpr uint64_t kSlices = 100;
constexpr ByteCount kSize(16 << 20);

TestImage image_of_many_slices() {
  TestImage image;
  image.cluster_bits = 9;
  image.slice_memory = "512";
  return image;
}

Task<void> write_one_cluster_a_slice(DeviceQueue& queue) {
  for (uint64_t i = 0; i < kSlices; ++i) {
    co_await write_stamped(queue, i * kSliceBytes, kCluster, static_cast<uint8_t>(i));
  }
}

// An image with its home shard's part, and a reader beside it.
struct Scene {
  Image& image;
  Home& home;
  StorageAccess& storage;
  ImageStage& stage;
  SliceReader reader{image, storage};

  L2Entry entry(uint64_t cluster) const {
    const Slice* slice = image.slices.find(image.geometry.slice_of(ClusterIndex(cluster)));
    return slice ? slice->load(image.geometry.index_in_slice(ClusterIndex(cluster)))
                 : L2Entry::unsettled();
  }
  bool is_in_memory(uint64_t slice) const { return image.slices.find(slice) != nullptr; }
};

using Play = Task<void> (*)(Scene& scene);

Task<void> play_on(ImageStage& stage, Shard& shard, Play play) {
  OpenedFormat opened = co_await open_test_format(stage.world.world(), stage.storage(), false,
                                                  stage.image.slice_memory);
  Image& image = static_cast<Qcow2Node&>(*opened.node).image();
  std::unique_ptr<Home> home = co_await Home::open(image, shard);
  std::unique_ptr<StorageAccess> storage = co_await StorageAccess::open(*image.storage, shard);
  Scene scene{image, *home, *storage, stage};
  Result<void> played = co_await play(scene).result();
  storage.reset();
  Result<void> closed = co_await home->close().result();
  home.reset();
  co_await opened.node->close();
  co_await std::move(played);
  co_await std::move(closed);
}

std::string played(ImageStage& stage, Play play) {
  auto steps = [&stage, play](Shard& shard) { return play_on(stage, shard, play); };
  return stage.text_of(stage.world.run(steps));
}

Task<void> write_cluster(Scene& scene, uint64_t cluster) {
  const auto range =
      GuestRange::between(GuestOffset(cluster * kCluster), GuestOffset((cluster + 1) * kCluster));
  std::optional<Allocation> allocation = co_await scene.home.begin_allocation(range);
  if (allocation) co_await scene.home.finish_allocation(*allocation);
}

// Until nothing of slice 0 is in memory.
Task<void> push_out(Scene& scene) {
  for (uint64_t i = 1; i < kSlices; ++i) {
    co_await scene.home.load(GuestOffset(i * kSliceBytes), nullptr);
  }
  EXPECT_FALSE(scene.is_in_memory(0));
}

Task<void> take_in_what_was_read(Scene& scene) {
  std::unique_ptr<SliceBatch> batch = co_await scene.reader.read(0);
  EXPECT_NE(batch, nullptr);
  const uint64_t requests = scene.stage.faults.requests;
  co_await scene.home.load(GuestOffset(0), batch.get());
  EXPECT_EQ(scene.stage.faults.requests, requests) << "read once more";
  EXPECT_EQ(scene.entry(0).kind(scene.image.geometry, true), EntryKind::kData);
  EXPECT_EQ(scene.entry(1), L2Entry::unallocated());
  scene.reader.recycle(*batch);
}

TEST(SliceReaderTest, WhatAShardReadIsNotReadAgain) {
  ImageStage stage(image_of_many_slices(), kSize, sim::SimDiskOptions::file());
  EXPECT_EQ(stage.text_of(stage.use(&write_one_cluster_a_slice)), "");
  EXPECT_EQ(played(stage, &take_in_what_was_read), "");
  stage.check();
}

Task<void> change_behind_the_reader(Scene& scene) {
  std::unique_ptr<SliceBatch> batch = co_await scene.reader.read(0);
  co_await write_cluster(scene, 1);
  co_await scene.home.flush();
  co_await push_out(scene);
  co_await scene.home.load(GuestOffset(0), batch.get());
  EXPECT_EQ(scene.entry(1).kind(scene.image.geometry, true), EntryKind::kData);
}

TEST(SliceReaderTest, ASliceThatWasChangedSinceIsReadAgain) {
  ImageStage stage(image_of_many_slices(), kSize, sim::SimDiskOptions::file());
  EXPECT_EQ(stage.text_of(stage.use(&write_one_cluster_a_slice)), "");
  EXPECT_EQ(played(stage, &change_behind_the_reader), "");
  stage.check();
}

// More slices have left memory since than anybody remembers.
Task<void> change_very_much_behind_the_reader(Scene& scene) {
  std::unique_ptr<SliceBatch> batch = co_await scene.reader.read(0);
  co_await write_cluster(scene, 1);
  for (uint64_t turn = 2; turn < 12; ++turn) {
    for (uint64_t i = 1; i < kSlices; ++i) {
      co_await write_cluster(scene, i * 64 + turn);
      co_await scene.home.flush();
    }
  }
  EXPECT_FALSE(scene.is_in_memory(0));
  co_await scene.home.load(GuestOffset(0), batch.get());
  EXPECT_EQ(scene.entry(1).kind(scene.image.geometry, true), EntryKind::kData);
}

TEST(SliceReaderTest, ASliceThatWasChangedLongAgoIsReadAgain) {
  ImageStage stage(image_of_many_slices(), kSize, sim::SimDiskOptions::file());
  EXPECT_EQ(stage.text_of(stage.use(&write_one_cluster_a_slice)), "");
  EXPECT_EQ(played(stage, &change_very_much_behind_the_reader), "");
  stage.check();
}

// The table has a place and is written later, its second slice without having been in memory: what
// lies there until then is somebody else's.
Task<void> write_a_table_behind_the_reader(Scene& scene) {
  EXPECT_EQ(scene.image.geometry.slices_per_table(), 2u);
  const ClusterIndex first_of_slice(scene.image.geometry.slice_entries());
  co_await write_cluster(scene, 0);
  EXPECT_FALSE(scene.is_in_memory(1));
  std::unique_ptr<SliceBatch> batch = co_await scene.reader.read(1);
  EXPECT_NE(batch, nullptr);
  co_await scene.home.flush();
  co_await scene.home.load(scene.image.geometry.guest_offset(first_of_slice), batch.get());
  EXPECT_EQ(scene.entry(first_of_slice.value()), L2Entry::unallocated());
}

TEST(SliceReaderTest, ATableThatWasWrittenSinceIsReadAgain) {
  TestImage image;
  image.cluster_bits = 13;
  sim::SimDiskOptions disk = sim::SimDiskOptions::block_device(ByteCount(1 << 20), 512);
  disk.stale = true;
  ImageStage stage(image, kSize, disk);
  EXPECT_EQ(played(stage, &write_a_table_behind_the_reader), "");
}

// While it is not written, the table's slices are zeros.
Task<void> read_a_table_before_it_is_written(Scene& scene) {
  const ClusterIndex first_of_slice(scene.image.geometry.slice_entries());
  co_await write_cluster(scene, 0);
  std::unique_ptr<SliceBatch> batch = co_await scene.reader.read(1);
  co_await scene.home.load(scene.image.geometry.guest_offset(first_of_slice), batch.get());
  EXPECT_EQ(scene.entry(first_of_slice.value()), L2Entry::unallocated());
}

TEST(SliceReaderTest, ATableThatIsNotWrittenYetIsNotTakenFromTheDisk) {
  TestImage image;
  image.cluster_bits = 13;
  sim::SimDiskOptions disk = sim::SimDiskOptions::block_device(ByteCount(1 << 20), 512);
  disk.stale = true;
  ImageStage stage(image, kSize, disk);
  EXPECT_EQ(played(stage, &read_a_table_before_it_is_written), "");
}

// An entry that points at the L1 table is rejected, whoever read it.
Task<void> take_in_damage(Scene& scene) {
  std::unique_ptr<SliceBatch> batch = co_await scene.reader.read(0);
  Result<void> loaded = co_await scene.home.load(GuestOffset(0), batch.get()).result();
  EXPECT_TRUE(!loaded.ok() && loaded.error().kind == ErrorKind::kCorrupt);
  EXPECT_TRUE(scene.image.health.is_corrupt());
}

TEST(SliceReaderTest, WhatPointsAtATableIsRejected) {
  ImageStage stage(image_of_many_slices(), kSize, sim::SimDiskOptions::file());
  EXPECT_EQ(stage.text_of(stage.use(&write_one_cluster_a_slice)), "");
  const uint64_t l1 = stage.get64(40);
  const uint64_t table = stage.get64(l1) & kOffsetMask;
  stage.put64(table, l1 | kCopied);
  EXPECT_EQ(played(stage, &take_in_damage), "");
}

// A table beyond the end of the file, or none: for the home shard to say.
Task<void> read_no_table(Scene& scene) {
  std::unique_ptr<SliceBatch> batch = co_await scene.reader.read(0);
  EXPECT_EQ(batch, nullptr);
}

TEST(SliceReaderTest, WithoutATableThereIsNothingToRead) {
  ImageStage stage(image_of_many_slices(), kSize, sim::SimDiskOptions::file());
  EXPECT_EQ(played(stage, &read_no_table), "");
}

}  // namespace
}  // namespace ringdisk::qcow2
