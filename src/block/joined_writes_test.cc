// SPDX-License-Identifier: Apache-2.0
// Writes that meet in a new cluster: one request of the storage for all of them, every byte where
// its writer put it, and one that fails takes nobody along.
#include "block/joined_writes.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "async/scope.h"
#include "block/scattered_format_test.h"
#include "nodes/raw.h"
#include "sim/sim_storage.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

constexpr uint64_t kCluster = ScatteredNode::kCluster;
constexpr uint64_t kDiskBytes = 8 * kCluster;
constexpr uint64_t kPiece = 512;
constexpr size_t kPieces = 6;  // of one cluster, from its second piece on
constexpr std::byte kBelow{0xbb}, kFirst{7}, kSecond{8}, kFourth{9};

std::byte content_of(size_t writer) { return static_cast<std::byte>(writer + 1); }

// A scattered disk over a backing image that is full of kBelow.
struct Stage {
  explicit Stage(uint64_t seed)
      : world(seed),
        disk(sim::SimDiskOptions(), seed, nullptr, &faults),
        base(sim::SimDiskOptions(), seed) {
    base.poke(0, std::vector<std::byte>(kDiskBytes, kBelow));
    auto raw = std::make_unique<RawNode>(storage_over(base, "base", 2), ByteCount(0),
                                         ByteCount(kDiskBytes));
    auto backing = std::make_shared<DeviceNode>("base", 2, std::move(raw), nullptr);
    auto format =
        std::make_unique<ScatteredNode>(storage_over(disk, "disk", 1), ByteCount(kDiskBytes), seed);
    scattered = format.get();
    device = std::make_unique<DeviceNode>("disk", 1, std::move(format), std::move(backing));
  }
  static std::unique_ptr<SharedStorage> storage_over(sim::SimDisk& disk, const char* name,
                                                     uint32_t id) {
    return std::make_unique<SharedStorage>(std::make_unique<sim::SimStorageNode>(disk, name, id));
  }

  sim::SimWorld world;
  sim::SimFaults faults;
  sim::SimDisk disk, base;
  std::unique_ptr<DeviceNode> device;
  ScatteredNode* scattered = nullptr;
};

Task<void> write_piece(DeviceQueue& queue, uint64_t offset, uint64_t length, std::byte content) {
  const std::vector<std::byte> source(length, content);
  WriteOptions options;
  co_await queue.write(GuestOffset(offset), ConstBuffers(Bytes(source)), options);
}

Task<void> expect_piece(DeviceQueue& queue, uint64_t offset, uint64_t length, std::byte content) {
  std::vector<std::byte> read(length);
  co_await queue.read(GuestOffset(offset), MutableBuffers(MutableBytes(read)));
  EXPECT_EQ(read, std::vector<std::byte>(length, content)) << "at " << offset;
}

// kPieces writes at once into the first cluster, in sequence; gives how many of them failed.
Task<size_t> write_all_pieces(DeviceQueue& queue) {
  size_t failed = 0;
  auto one = [&queue, &failed](size_t i) -> Task<void> {
    Result<void> done =
        co_await write_piece(queue, (i + 1) * kPiece, kPiece, content_of(i)).result();
    failed += !done.ok();
  };
  co_await when_all(kPieces, one);
  co_return failed;
}

Task<void> expect_all_pieces(DeviceQueue& queue) {
  co_await expect_piece(queue, 0, kPiece, kBelow);
  for (size_t i = 0; i < kPieces; ++i) {
    co_await expect_piece(queue, (i + 1) * kPiece, kPiece, content_of(i));
  }
  const uint64_t behind = (kPieces + 1) * kPiece;
  co_await expect_piece(queue, behind, kCluster - behind, kBelow);
}

template <class Body>
void run(Stage& stage, Body body) {
  auto whole = [&](Shard& shard) -> Task<void> {
    std::unique_ptr<DeviceQueue> queue = co_await stage.device->open_queue(shard);
    co_await body(*queue);
    queue.reset();
    co_await stage.device->close();
  };
  Result<void> done = stage.world.run(whole);
  EXPECT_TRUE(done.ok()) << stage.world.diagnostics().describe(done.error());
  EXPECT_FALSE(stage.scattered->is_any_busy());
}

TEST(JoinedWritesTest, SmallWritesIntoANewClusterAreOneWriteOfTheStorage) {
  sim::for_each_seed(20, [](uint64_t seed) {
    Stage stage(seed);
    stage.faults.only = sim::SimOperation::kWrite;  // counts these alone
    auto body = [&](DeviceQueue& queue) -> Task<void> {
      const size_t failed = co_await write_all_pieces(queue);
      EXPECT_EQ(failed, 0u);
      EXPECT_EQ(stage.faults.requests, 1u);
      EXPECT_EQ(stage.scattered->allocations(), 1u);
      co_await expect_all_pieces(queue);
    };
    run(stage, body);
  });
}

// The one write of all fails once: its own request is told, the others write by themselves.
TEST(JoinedWritesTest, AFailureIsTheLeadersAlone) {
  sim::for_each_seed(20, [](uint64_t seed) {
    Stage stage(seed);
    stage.faults.only = sim::SimOperation::kWrite;
    stage.faults.fail_at = 0;
    auto body = [&](DeviceQueue& queue) -> Task<void> {
      const size_t failed = co_await write_all_pieces(queue);
      EXPECT_EQ(failed, 1u);
      EXPECT_EQ(stage.scattered->abandoned(), 1u);
      std::vector<std::byte> read((kPieces + 1) * kPiece);
      co_await queue.read(GuestOffset(0), MutableBuffers(MutableBytes(read)));
      size_t missing = 0;
      for (size_t i = 0; i < kPieces; ++i) missing += read[(i + 1) * kPiece] != content_of(i);
      EXPECT_EQ(missing, 1u);
    };
    run(stage, body);
  });
}

// The second write begins in the first one's cluster and goes on behind it, the third overlaps the
// first, the fourth lies before it.
TEST(JoinedWritesTest, WritesThatReachOutOverlapOrComeFromTheOtherSideAreWhole) {
  sim::for_each_seed(50, [](uint64_t seed) {
    Stage stage(seed);
    auto body = [&](DeviceQueue& queue) -> Task<void> {
      auto one = [&queue](size_t i) -> Task<void> {
        constexpr uint64_t kAt[] = {2048, 3072, 2048, 512};
        constexpr uint64_t kLength[] = {1024, 2 * kCluster, 512, 1024};
        constexpr std::byte kContent[] = {kFirst, kSecond, kFirst, kFourth};
        co_await write_piece(queue, kAt[i], kLength[i], kContent[i]);
      };
      co_await when_all(4, one);
      co_await expect_piece(queue, 0, 512, kBelow);
      co_await expect_piece(queue, 512, 1024, kFourth);
      co_await expect_piece(queue, 1536, 512, kBelow);
      co_await expect_piece(queue, 2048, 1024, kFirst);
      co_await expect_piece(queue, 3072, 2 * kCluster, kSecond);
      const uint64_t behind = 3072 + 2 * kCluster;
      co_await expect_piece(queue, behind, kDiskBytes - behind, kBelow);
    };
    run(stage, body);
  });
}

}  // namespace
}  // namespace ringdisk
