// SPDX-License-Identifier: Apache-2.0
// One bitmap on real threads, for the thread sanitizer above all: shards write side by side, most
// of it in place and into the same words of bits, and look at them meanwhile.
#include <gtest/gtest.h>

#include "nodes/mem.h"
#include "qcow2/bitmaps/bitmap_fixture_test.h"
#include "sim/real_world.h"

namespace ringdisk::qcow2 {
namespace {

constexpr ByteCount kSize(8 << 20);
constexpr size_t kGranules = kSize.value() / kTestGranularity;
constexpr uint64_t kTurns = 2000;

constexpr char kUntouched = 0, kZeroed = 1, kWritten = 2;

std::unique_ptr<SharedStorage> mem_storage(const std::shared_ptr<MemContent>& content) {
  return std::make_unique<SharedStorage>(std::make_unique<MemNode>("disk.qcow2", 1, content));
}

// Granules index % shards == own; `written` has one char a granule, so that threads share none.
Task<void> write_own_granules(Shard& shard, DeviceNode& node, uint64_t shards,
                              std::vector<char>& written) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(shard);
  std::shared_ptr<const DirtyBits> bits = co_await node.format().find_bitmap("b0");
  Random random(sim::mix_seed(sim::seed_or(1), shard.index()));
  std::vector<std::byte> block(512, std::byte{7});
  for (uint64_t turn = 0; turn < kTurns; ++turn) {
    const uint64_t index = random.below(kGranules / shards / 2) * shards + shard.index();
    const GuestOffset at(index * kTestGranularity + random.below(8) * 512);
    const GuestRange range(at, ByteCount(block.size()));
    if (random.chance(10)) {  // of what is zero already nothing need be recorded
      co_await queue->write_zeroes(range, ZeroOptions());
      if (written[index] == kUntouched) written[index] = kZeroed;
      continue;
    }
    co_await queue->write(at, ConstBuffers(Bytes(block)), WriteOptions());
    written[index] = kWritten;
    EXPECT_TRUE(bits->find_stretch(range).is_dirty) << "granule " << index;
  }
}

Task<void> write_there(Shard& there, DeviceNode& node, uint64_t shards,
                       std::vector<char>& written) {
  auto work = [&there, &node, shards, &written] {
    return write_own_granules(there, node, shards, written);
  };
  co_await there.call(work);
}

Task<void> write_everywhere(const World& world, std::shared_ptr<MemContent> content) {
  const TestImage image;
  std::unique_ptr<SharedStorage> created = mem_storage(content);
  co_await create_test_image(image, *created, kSize);
  co_await created->node->close();
  std::vector<BitmapEdit> edits = {add_bitmap("b0")};
  co_await edit_test_bitmaps(world, mem_storage(content), edits);
  std::shared_ptr<DeviceNode> node =
      co_await open_test_image(world, image, nullptr, mem_storage(content), false);
  std::vector<char> written(kGranules);
  auto one = [&](size_t index) {
    return write_there(*world.shards[index], *node, world.shards.size(), written);
  };
  co_await when_all(world.shards.size(), one);
  co_await node->close();
  co_await check_test_image(world, image, mem_storage(content));
  const SeenBitmaps seen = co_await read_bitmaps(world, mem_storage(content));
  for (size_t i = 0; i < kGranules; ++i) {
    const bool is_dirty = seen.dirty.at("b0")[i];
    EXPECT_TRUE(is_dirty || written[i] != kWritten) << "granule " << i;
    EXPECT_TRUE(!is_dirty || written[i] != kUntouched) << "granule " << i;
  }
}

TEST(BitmapThreadsTest, NoThreadLosesABit) {
  sim::RealWorld real(LoopKind::kBest, 3);
  ASSERT_TRUE(real.is_started());
  auto content = std::make_shared<MemContent>();
  auto root = [&](Shard&) { return write_everywhere(real.world(), content); };
  EXPECT_TRUE(real.run(root).ok());
}

}  // namespace
}  // namespace ringdisk::qcow2
