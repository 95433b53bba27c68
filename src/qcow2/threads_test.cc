// SPDX-License-Identifier: Apache-2.0
// One image on real threads: each shard writes, discards and reads its own blocks, which share
// clusters and tables with those of the others. For the thread sanitizer above all; what
// interleaves where coroutines suspend is the business of model_test.cc.
#include <gtest/gtest.h>

#include "nodes/mem.h"
#include "qcow2/image_fixture_test.h"
#include "sim/real_world.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kBlocks = 2048;
constexpr ByteCount kSize(kBlock* kBlocks);

void fill_block(MutableBytes block, uint64_t index, uint64_t generation) {
  for (size_t at = 0; at < block.size(); at += 16) {
    store_be64(&block[at], index);
    store_be64(&block[at + 8], generation);
  }
}

// Blocks index % shards == own, in random order; every generation is read back.
Task<void> work_on_own_blocks(Shard& shard, DeviceNode& node, uint64_t shards) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(shard);
  Random random(sim::mix_seed(sim::seed_or(1), shard.index()));
  std::vector<uint64_t> generations(kBlocks);
  std::vector<std::byte> block(kBlock), wanted(kBlock);
  for (uint64_t turn = 1; turn <= 3000; ++turn) {
    const uint64_t index = random.below(kBlocks / shards) * shards + shard.index();
    const GuestOffset at(index * kBlock);
    const uint64_t what = random.below(100);
    if (what < 50) {
      generations[index] = turn;
      fill_block(block, index, turn);
      co_await queue->write(at, ConstBuffers(Bytes(block)), WriteOptions());
    } else if (what < 60) {
      generations[index] = 0;
      co_await queue->write_zeroes(GuestRange(at, ByteCount(kBlock)), ZeroOptions());
    } else if (what < 62) {
      co_await queue->flush();
    } else {
      co_await queue->read(at, MutableBuffers(MutableBytes(block)));
      fill_zero(wanted);
      if (generations[index] != 0) fill_block(wanted, index, generations[index]);
      EXPECT_EQ(block, wanted) << "block " << index;
    }
  }
}

Task<void> work_there(Shard& there, DeviceNode& node, uint64_t shards) {
  auto work = [&there, &node, shards] { return work_on_own_blocks(there, node, shards); };
  co_await there.call(work);
}

Task<void> work_everywhere(const World& world, TestImage image,
                           std::shared_ptr<MemContent> content) {
  auto created =
      std::make_unique<SharedStorage>(std::make_unique<MemNode>("disk.qcow2", 1, content));
  co_await create_test_image(image, *created, kSize);
  co_await created->node->close();
  auto storage =
      std::make_unique<SharedStorage>(std::make_unique<MemNode>("disk.qcow2", 1, content));
  std::shared_ptr<DeviceNode> node =
      co_await open_test_image(world, image, nullptr, std::move(storage), false);
  auto one = [&](size_t index) {
    return work_there(*world.shards[index], *node, world.shards.size());
  };
  co_await when_all(world.shards.size(), one);
  co_await node->close();
  auto checked =
      std::make_unique<SharedStorage>(std::make_unique<MemNode>("disk.qcow2", 1, content));
  co_await check_test_image(world, image, std::move(checked));
}

void work_on_threads(const TestImage& image) {
  sim::RealWorld real(LoopKind::kBest, 3);
  ASSERT_TRUE(real.is_started());
  auto content = std::make_shared<MemContent>();
  auto root = [&](Shard&) { return work_everywhere(real.world(), image, content); };
  EXPECT_TRUE(real.run(root).ok()) << image.cluster_bits;
}

TEST(Qcow2ThreadsTest, ShardsOnThreadsKeepTheirBlocksApart) {
  for (uint32_t cluster_bits : {9u, 12u, 16u}) {
    TestImage image;
    image.cluster_bits = cluster_bits;
    work_on_threads(image);
  }
}

// A quarter of the tables at a time: slices come and go all the while, read by every shard.
TEST(Qcow2ThreadsTest, ShardsOnThreadsKeepTheirBlocksApartWithHardlyAnyMemoryForTables) {
  TestImage image;
  image.cluster_bits = 9;
  image.slice_memory = "512";
  work_on_threads(image);
}

// Blocks of 4 KiB are less than a subcluster, one, or several.
TEST(Qcow2ThreadsTest, ShardsOnThreadsKeepTheirSubclustersApart) {
  for (uint32_t cluster_bits : {14u, 16u, 17u, 19u}) {
    TestImage image;
    image.cluster_bits = cluster_bits;
    image.extended_l2 = true;
    work_on_threads(image);
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
