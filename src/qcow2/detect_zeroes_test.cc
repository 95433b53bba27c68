// SPDX-License-Identifier: Apache-2.0
// Device policies on an image: written zeros that take no space, and discards that do nothing.
#include <gtest/gtest.h>

#include "qcow2/image_stage_test.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kCluster = 4096;
constexpr ByteCount kSize(1 << 20);

TestImage image_with(DetectZeroes detect_zeroes, bool discards) {
  TestImage image;
  image.policy.detect_zeroes = detect_zeroes;
  image.policy.discards = discards;
  return image;
}

Task<void> write_bytes(DeviceQueue& queue, uint64_t offset, const std::vector<std::byte>& bytes) {
  co_await queue.write(GuestOffset(offset), ConstBuffers(Bytes(bytes)), WriteOptions());
}

Task<void> expect_status(DeviceQueue& queue, uint64_t offset, uint64_t length, bool is_data) {
  const GuestRange range{GuestOffset(offset), ByteCount(length)};
  const BlockStatus status = co_await queue.block_status(range, 0);
  EXPECT_EQ(status.data, is_data) << "at " << offset;
  EXPECT_EQ(status.length.value(), length) << "at " << offset;
}

// Half of cluster 0, clusters 2 and 3 and a part of 5 are zeros.
std::vector<std::byte> mixed() {
  std::vector<std::byte> bytes(6 * kCluster, std::byte{7});
  fill_zero(MutableBytes(bytes).first(kCluster / 2));
  fill_zero(MutableBytes(bytes).subspan(2 * kCluster, 2 * kCluster));
  fill_zero(MutableBytes(bytes).subspan(5 * kCluster, 100));
  return bytes;
}

TEST(DetectZeroesTest, ClustersOfZerosTakeNoSpace) {
  ImageStage stage(image_with(DetectZeroes::kOn, true), kSize, sim::SimDiskOptions::file());
  auto body = [](DeviceQueue& queue) -> Task<void> {
    const std::vector<std::byte> bytes = mixed();
    co_await write_bytes(queue, 0, bytes);
    co_await expect_status(queue, 0, 2 * kCluster, true);
    co_await expect_status(queue, 2 * kCluster, 2 * kCluster, false);
    co_await expect_status(queue, 4 * kCluster, 2 * kCluster, true);
    std::vector<std::byte> read(bytes.size(), std::byte{1});
    co_await queue.read(GuestOffset(0), MutableBuffers(MutableBytes(read)));
    EXPECT_TRUE(read == bytes);
  };
  const Result<void> used = stage.use(body);
  EXPECT_TRUE(used.ok()) << stage.text_of(used);
  stage.check();
}

TEST(DetectZeroesTest, WithoutItZerosAreData) {
  ImageStage stage(TestImage(), kSize, sim::SimDiskOptions::file());
  auto body = [](DeviceQueue& queue) -> Task<void> {
    const std::vector<std::byte> bytes = mixed();
    co_await write_bytes(queue, 0, bytes);
    co_await expect_status(queue, 0, 6 * kCluster, true);
  };
  EXPECT_TRUE(stage.use(body).ok());
}

// Less than a cluster of zeros, where there is nothing, stays nothing.
TEST(DetectZeroesTest, APartOfAClusterThatReadsZeroIsNotWritten) {
  ImageStage stage(image_with(DetectZeroes::kUnmap, true), kSize, sim::SimDiskOptions::file());
  auto body = [](DeviceQueue& queue) -> Task<void> {
    const std::vector<std::byte> zeros(3 * kCluster);
    co_await write_bytes(queue, kCluster / 2, zeros);
    co_await expect_status(queue, kCluster, 2 * kCluster, false);
    const GuestRange cluster(GuestOffset(0), ByteCount(kCluster));
    const BlockStatus first = co_await queue.block_status(cluster, 0);
    EXPECT_FALSE(first.data);
  };
  EXPECT_TRUE(stage.use(body).ok());
  stage.check();
}

Task<void> zero_what_was_there(DeviceQueue& queue, bool unmaps) {
  co_await write_stamped(queue, 0, 4 * kCluster, 9);
  const std::vector<std::byte> zeros(4 * kCluster);
  co_await write_bytes(queue, 0, zeros);
  const GuestRange range(GuestOffset(0), ByteCount(4 * kCluster));
  const BlockStatus status = co_await queue.block_status(range, 0);
  EXPECT_TRUE(status.zero);
  EXPECT_EQ(status.host.has_value(), !unmaps);
  co_await expect_stamped(queue, 0, 4 * kCluster, 0);
}

// Clusters that were there: given back with unmap, kept with on.
TEST(DetectZeroesTest, UnmapGivesClustersBack) {
  for (const bool unmaps : {false, true}) {
    ImageStage stage(image_with(unmaps ? DetectZeroes::kUnmap : DetectZeroes::kOn, true), kSize,
                     sim::SimDiskOptions::file());
    auto body = [unmaps](DeviceQueue& queue) { return zero_what_was_there(queue, unmaps); };
    const Result<void> used = stage.use(body);
    EXPECT_TRUE(used.ok()) << stage.text_of(used);
    stage.check();
  }
}

TEST(DiscardPolicyTest, IgnoredDiscardsChangeNothing) {
  ImageStage stage(image_with(DetectZeroes::kOff, false), kSize, sim::SimDiskOptions::file());
  auto body = [](DeviceQueue& queue) -> Task<void> {
    co_await write_stamped(queue, 0, 4 * kCluster, 9);
    const GuestRange range(GuestOffset(0), ByteCount(4 * kCluster));
    co_await queue.discard(range);
    co_await expect_stamped(queue, 0, 4 * kCluster, 9);
    // Zeros keep the clusters.
    co_await queue.write_zeroes(range, ZeroOptions());
    const BlockStatus status = co_await queue.block_status(range, 0);
    EXPECT_TRUE(status.zero);
    EXPECT_TRUE(status.host.has_value());
  };
  const Result<void> used = stage.use(body);
  EXPECT_TRUE(used.ok()) << stage.text_of(used);
}

}  // namespace
}  // namespace ringdisk::qcow2
