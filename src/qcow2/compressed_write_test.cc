// SPDX-License-Identifier: Apache-2.0
// Compressed clusters written: where their streams go, how host clusters are counted, what happens
// to them later, and what is refused. Every 512-byte block has its own content.
#include <gtest/gtest.h>

#include <algorithm>

#include "qcow2/home/open_clusters.h"
#include "qcow2/image_fixture_test.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kClusters = 64;
constexpr ByteCount kSize(kClusters* kCluster - 1000);  // the last cluster is cut

// Content of a cluster that shrinks to a few hundred bytes, or one that does not shrink.
std::vector<std::byte> content_of(uint64_t cluster, uint64_t generation, bool shrinks) {
  Random random(sim::mix_seed(cluster, generation));
  const uint64_t length = std::min(kCluster, kSize.value() - cluster * kCluster);
  std::vector<std::byte> bytes(length);
  for (size_t i = 0; i < length; ++i) {
    bytes[i] = shrinks && i % 512 >= 16 ? bytes[i - 16] : static_cast<std::byte>(random.next());
  }
  return bytes;
}

class CompressedWriteTest : public ::testing::Test {
 protected:
  // Opens the image, lets `use` work with a queue, closes.
  template <class Use>
  Result<void> with_queue(Use use, bool read_only = false) {
    auto steps = [&](Shard& shard) { return run_steps(shard, use, read_only); };
    return world_.run(steps);
  }
  // A closed image's report; it is sound, and nothing leaks.
  CheckReport check() {
    CheckReport report;
    auto steps = [&](Shard&) { return check_steps(report); };
    EXPECT_TRUE(world_.run(steps).ok());
    EXPECT_EQ(report.corruptions, 0u);
    EXPECT_EQ(report.leaks, 0u);
    for (const std::string& message : report.messages) ADD_FAILURE() << message;
    return report;
  }
  void make_image() { disk_.poke(0, encode_test_image(image_, kSize)); }

  // What each cluster holds; empty: zeros.
  std::vector<std::vector<std::byte>> wanted_{kClusters};

  Task<void> compress(DeviceQueue& queue, uint64_t cluster, uint64_t generation, bool shrinks) {
    wanted_[cluster] = content_of(cluster, generation, shrinks);
    CompressOptions options;
    co_await queue.write_compressed(GuestOffset(cluster * kCluster), wanted_[cluster], options);
  }
  Task<void> compress_all(DeviceQueue& queue) {
    for (uint64_t i = 0; i < kClusters; ++i) co_await compress(queue, i, 1, true);
  }
  Task<void> write_mixed(DeviceQueue& queue) {
    for (uint64_t i = 0; i < kClusters; ++i) co_await compress(queue, i, 1, i % 2 == 0);
  }
  Task<void> write_into_compressed(DeviceQueue& queue) {
    co_await compress_all(queue);
    const std::vector<std::byte> bytes = content_of(10, 2, false);
    const Bytes middle = Bytes(bytes).subspan(1000, 2000);  // the end of cluster 9, the start of 10
    std::copy(middle.begin(), middle.begin() + 500, wanted_[9].end() - 500);
    std::copy(middle.begin() + 500, middle.end(), wanted_[10].begin());
    const GuestOffset at(10 * kCluster - 500);
    co_await queue.write(at, ConstBuffers(middle), WriteOptions());
    co_await expect_content(queue);
  }
  // Ordinary clusters first, kept zeros among them, then streams twice.
  Task<void> replace_all(DeviceQueue& queue) {
    for (uint64_t i = 0; i < kClusters; ++i) co_await compress(queue, i, 1, false);
    ZeroOptions keep;
    keep.may_unmap = false;
    const GuestRange some(GuestOffset(5 * kCluster), ByteCount(7 * kCluster));
    co_await queue.write_zeroes(some, keep);
    for (uint64_t i = 0; i < kClusters; ++i) co_await compress(queue, i, 2, true);
    co_await queue.flush();
    for (uint64_t i = 0; i < kClusters; ++i) co_await compress(queue, i, 3, true);
    co_await expect_content(queue);
  }
  // All streams of the open host cluster go, and are freed, while others come.
  Task<void> empty_and_go_on(DeviceQueue& queue) {
    for (uint64_t i = 0; i < 5; ++i) co_await compress(queue, i, 1, true);
    const GuestRange gone(GuestOffset(0), ByteCount(5 * kCluster));
    for (uint64_t i = 0; i < 5; ++i) wanted_[i].clear();
    co_await queue.discard(gone);
    co_await compress(queue, 7, 1, true);
    co_await queue.flush();
    for (uint64_t i = 1; i < kClusters; ++i) co_await compress(queue, i, 2, true);
    co_await queue.flush();
    co_await expect_content(queue);
  }
  Task<void> expect_content(DeviceQueue& queue) {
    for (uint64_t i = 0; i < kClusters; ++i) {
      std::vector<std::byte> found(content_of(i, 0, false).size());
      co_await queue.read(GuestOffset(i * kCluster), MutableBuffers(MutableBytes(found)));
      std::vector<std::byte> wanted = wanted_[i];
      wanted.resize(found.size());
      EXPECT_EQ(found, wanted) << "cluster " << i;
    }
  }
  void expect_content_after_opening_again() {
    auto look = [this](DeviceQueue& queue) { return expect_content(queue); };
    EXPECT_TRUE(with_queue(look, true).ok());
  }

  sim::SimWorld world_{sim::seed_or(1), 1};
  sim::SimDisk disk_{sim::SimDiskOptions::file(), 1};
  TestImage image_;

 private:
  std::unique_ptr<SharedStorage> storage() {
    return std::make_unique<SharedStorage>(
        std::make_unique<sim::SimStorageNode>(disk_, "disk.qcow2", 1));
  }
  template <class Use>
  Task<void> run_steps(Shard& shard, Use& use, bool read_only) {
    std::shared_ptr<DeviceNode> node =
        co_await open_test_image(world_.world(), image_, nullptr, storage(), read_only);
    std::unique_ptr<DeviceQueue> queue = co_await node->open_queue(shard);
    Result<void> used = co_await use(*queue).result();
    queue.reset();
    Result<void> closed = co_await node->close().result();
    co_await std::move(used);
    co_await std::move(closed);
  }
  Task<void> check_steps(CheckReport& report) {
    std::unique_ptr<SharedStorage> image = storage();
    const std::function<void(CheckProgress)> no_progress;
    std::optional<CheckReport> made = co_await check_image(world_.world(), *image, no_progress);
    co_await image->node->close();
    report = *made;
  }
};

TEST_F(CompressedWriteTest, StreamsLieOneBehindTheOther) {
  for (Compression compression : {Compression::kDeflate, Compression::kZstd}) {
    image_.compression = compression;
    make_image();
    auto write = [this](DeviceQueue& queue) { return compress_all(queue); };
    ASSERT_TRUE(with_queue(write).ok());
    EXPECT_EQ(check().compressed_clusters, kClusters);
    // A cluster shrinks to less than a tenth, and the tables take six clusters.
    EXPECT_LT(disk_.size(), (6 + kClusters / 8) * kCluster);
    expect_content_after_opening_again();
  }
}

TEST_F(CompressedWriteTest, ARefcountThatCountsNoFurtherBeginsANewHostCluster) {
  for (uint32_t order : {0u, 1u}) {
    image_.refcount_order = order;
    make_image();
    auto write = [this](DeviceQueue& queue) { return compress_all(queue); };
    ASSERT_TRUE(with_queue(write).ok());
    EXPECT_EQ(check().compressed_clusters, kClusters);
    const uint64_t streams_max = order == 0 ? 1 : 3;
    EXPECT_GE(disk_.size(), kClusters / streams_max * kCluster);
    expect_content_after_opening_again();
  }
}

TEST_F(CompressedWriteTest, AClusterThatDoesNotShrinkIsAnOrdinaryOne) {
  make_image();
  auto write = [this](DeviceQueue& queue) { return write_mixed(queue); };
  ASSERT_TRUE(with_queue(write).ok());
  const CheckReport report = check();
  // Every second one, and the last: behind the disk's end there are zeros, which shrink.
  EXPECT_EQ(report.compressed_clusters, kClusters / 2 + 1);
  EXPECT_EQ(report.allocated_clusters, kClusters);
  expect_content_after_opening_again();
}

TEST_F(CompressedWriteTest, ALaterWriteGivesTheClusterAPlaceOfItsOwn) {
  make_image();
  auto write = [this](DeviceQueue& queue) { return write_into_compressed(queue); };
  ASSERT_TRUE(with_queue(write).ok());
  EXPECT_EQ(check().compressed_clusters, kClusters - 2);
  expect_content_after_opening_again();
}

TEST_F(CompressedWriteTest, ReplacesWhatWasThereAndGivesItBack) {
  make_image();
  auto write = [this](DeviceQueue& queue) { return replace_all(queue); };
  ASSERT_TRUE(with_queue(write).ok());
  EXPECT_EQ(check().compressed_clusters, kClusters);
  expect_content_after_opening_again();
}

TEST_F(CompressedWriteTest, AnEmptiedHostClusterIsNotPackedFurther) {
  make_image();
  auto write = [this](DeviceQueue& queue) { return empty_and_go_on(queue); };
  ASSERT_TRUE(with_queue(write).ok());
  EXPECT_EQ(check().compressed_clusters, kClusters - 1);
  expect_content_after_opening_again();
}

Task<void> expect_refusals(DeviceQueue& queue) {
  const std::vector<std::byte> bytes(2 * kCluster);
  const Bytes all(bytes);
  CompressOptions options;
  struct Refused {
    uint64_t offset, length;
  };
  constexpr Refused kRefused[] = {{512, kCluster},
                                  {0, kCluster - 512},
                                  {0, 2 * kCluster},
                                  {0, 0},
                                  {(kClusters - 1) * kCluster, kCluster}};
  for (Refused one : kRefused) {
    Result<void> done =
        co_await queue.write_compressed(GuestOffset(one.offset), all.first(one.length), options)
            .result();
    EXPECT_FALSE(done.ok()) << one.offset << " " << one.length;
    if (!done.ok()) {
      EXPECT_EQ(done.error().kind, ErrorKind::kInvalid);
    }
  }
  options.level = 13;  // of zlib there are twelve
  Result<void> done =
      co_await queue.write_compressed(GuestOffset(0), all.first(kCluster), options).result();
  EXPECT_FALSE(done.ok());
  if (!done.ok()) {
    EXPECT_EQ(done.error().kind, ErrorKind::kInvalid);
  }
  EXPECT_EQ(queue.counters().compressed_writes, 6u);
  EXPECT_EQ(queue.counters().writes, 6u);
}

TEST_F(CompressedWriteTest, OnlyWholeClustersAndLevelsThatExist) {
  make_image();
  EXPECT_TRUE(with_queue(&expect_refusals).ok());
  EXPECT_EQ(check().allocated_clusters, 0u);
}

TEST_F(CompressedWriteTest, AReadOnlyImageIsNotWritten) {
  make_image();
  auto write = [this](DeviceQueue& queue) { return compress(queue, 0, 1, true); };
  Result<void> done = with_queue(write, true);
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().kind, ErrorKind::kDenied);
}

TEST(OpenClustersTest, StreamsGoWhereLeastRoomIsLeftOver) {
  OpenClusters open(Geometry(12, 4));
  open.add(HostOffset(0x5f00));  // 0x100 left
  open.add(HostOffset(0x7800));  // 0x800 left
  open.add(HostOffset(0x9000));  // the cluster before is full, this one is not begun
  EXPECT_EQ(open.find(ByteCount(0x100)), HostOffset(0x5f00));
  EXPECT_EQ(open.find(ByteCount(0x101)), HostOffset(0x7800));
  EXPECT_EQ(open.find(ByteCount(0x801)), std::nullopt);
  EXPECT_EQ(open.find_before(ClusterIndex(8)), HostOffset(0x7800));
  EXPECT_EQ(open.find_before(ClusterIndex(9)), std::nullopt);
  open.add(HostOffset(0x7900));  // in place of 0x7800
  EXPECT_FALSE(open.contains(HostOffset(0x7800)));
  EXPECT_TRUE(open.contains(HostOffset(0x7900)));
  open.leave({ClusterIndex(6), 2});
  EXPECT_EQ(open.find(ByteCount(0x200)), std::nullopt);
  EXPECT_TRUE(open.contains(HostOffset(0x5f00)));
}

TEST(OpenClustersTest, TheOldestLeavesWhenThereAreMany) {
  OpenClusters open(Geometry(12, 4));
  for (uint64_t i = 1; i <= 20; ++i) open.add(HostOffset(i * 0x1000 + 0x10));
  EXPECT_FALSE(open.contains(HostOffset(0x1010)));
  EXPECT_TRUE(open.contains(HostOffset(20 * 0x1000 + 0x10)));
}

}  // namespace
}  // namespace ringdisk::qcow2
