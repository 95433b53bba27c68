// SPDX-License-Identifier: Apache-2.0
// mem as a storage: growth, limits, several shards at once, its options.
#include "nodes/mem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/limits.h"
#include "base/random.h"
#include "runtime/next_turn.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using limits::kGiB;
using limits::kMiB;
using sim::SimWorld;

constexpr uint64_t kTiB = 1024 * kGiB;

// `length` bytes whose every 512-byte block has its own content.
std::vector<std::byte> pattern(uint64_t seed, size_t length) {
  std::vector<std::byte> bytes(length);
  for (size_t at = 0; at < length; ++at) {
    uint64_t word = Random(seed + at / 512).next();
    bytes[at] = static_cast<std::byte>(word >> (8 * (at % 8)));
  }
  return bytes;
}

std::vector<std::byte> read_back(const SparseMemory& memory, uint64_t offset, size_t length) {
  std::vector<std::byte> bytes(length, std::byte{0xee});
  memory.read(HostOffset(offset), bytes);
  return bytes;
}

Task<void> write_then_read(Shard& shard, MemNode& node, uint64_t offset, size_t length) {
  std::unique_ptr<StorageQueue> queue = co_await node.open_queue(shard);
  std::vector<std::byte> written = pattern(offset, length), read(length);
  co_await queue->write(HostOffset(offset), ConstBuffers(Bytes(written)), WriteOptions());
  co_await queue->read(HostOffset(offset), MutableBuffers(MutableBytes(read)));
  EXPECT_EQ(read, written);
}

TEST(MemNodeTest, GrowsWithWrites) {
  SimWorld world;
  MemNode node("mem", 1, ByteCount(0));
  auto body = [&node](Shard& shard) { return write_then_read(shard, node, kMiB, 3 * kMiB + 7); };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_EQ(node.size().value(), 4 * kMiB + 7);
}

TEST(MemNodeTest, DisjointRangesOfSeveralShardsDoNotDisturbEachOther) {
  sim::for_each_seed(20, [](uint64_t seed) {
    SimWorld world(seed, 4);
    MemNode node("mem", 1, ByteCount(0));
    auto body = [&node](Shard& shard) {
      return write_then_read(shard, node, shard.index() * (2 * kMiB + 1000), 2 * kMiB + 1000);
    };
    ASSERT_TRUE(world.run_on_all(body).ok());
    for (uint64_t index = 0; index < 4; ++index) {
      uint64_t at = index * (2 * kMiB + 1000);
      EXPECT_EQ(read_back(node.content()->memory(), at, 2 * kMiB + 1000),
                pattern(at, 2 * kMiB + 1000));
    }
  });
}

Task<void> write_beyond_the_largest_offset(Shard& shard, MemNode& node) {
  std::unique_ptr<StorageQueue> queue = co_await node.open_queue(shard);
  std::vector<std::byte> bytes = pattern(1, 512);
  HostOffset at(SparseMemory::kBytesMax - 100);
  co_await queue->write(at, ConstBuffers(Bytes(bytes)), WriteOptions());
}

TEST(MemNodeTest, AnOffsetThatIsTooLargeIsAnError) {
  SimWorld world;
  MemNode node("mem", 1, ByteCount(0));
  auto body = [&node](Shard& shard) { return write_beyond_the_largest_offset(shard, node); };
  Result<void> result = world.run(body);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().errno_value, EFBIG);
  EXPECT_EQ(node.size().value(), 0u);
}

Task<void> cut_and_grow(Shard& shard, MemNode& node) {
  std::unique_ptr<StorageQueue> queue = co_await node.open_queue(shard);
  std::vector<std::byte> written = pattern(5, 100000), read(100000);
  co_await queue->write(HostOffset(0), ConstBuffers(Bytes(written)), WriteOptions());
  co_await queue->resize(ByteCount(1000));
  co_await queue->resize(ByteCount(100000));
  co_await queue->read(HostOffset(0), MutableBuffers(MutableBytes(read)));
  std::fill(written.begin() + 1000, written.end(), std::byte{0});
  EXPECT_EQ(read, written);
}

TEST(MemNodeTest, WhatWasCutOffReadsAsZerosWhenItGrowsAgain) {
  SimWorld world;
  MemNode node("mem", 1, ByteCount(0));
  auto body = [&node](Shard& shard) { return cut_and_grow(shard, node); };
  ASSERT_TRUE(world.run(body).ok());
}

// A large copy must not keep a timer or another coroutine waiting for all of it.
Task<void> count_turns(Shard& shard, const bool& done, uint32_t& turns) {
  while (!done) {
    co_await NextTurn(shard);
    ++turns;
  }
}
Task<void> write_much(Shard& shard, MemNode& node, bool& done) {
  co_await write_then_read(shard, node, 0, 16 * kMiB);
  done = true;
}
Task<void> write_much_and_count(Shard& shard, MemNode& node, uint32_t& turns) {
  bool done = false;
  auto one = [&](size_t which) {
    return which == 0 ? write_much(shard, node, done) : count_turns(shard, done, turns);
  };
  co_await when_all(2, one);
}

TEST(MemNodeTest, LargeTransfersLetOthersRunInBetween) {
  SimWorld world;
  MemNode node("mem", 1, ByteCount(0));
  uint32_t turns = 0;
  auto body = [&](Shard& shard) { return write_much_and_count(shard, node, turns); };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_GE(turns, 20u);
}

// --- the driver
// -----------------------------------------------------------------------------------

Task<void> open_by_options(SimWorld& world, std::string text, uint64_t size_expected) {
  Options options = co_await Options::parse(text, world.diagnostics());
  StorageDriver driver = mem_driver();
  std::unique_ptr<StorageNode> node = co_await driver.open(world.world(), options, OpenMode());
  EXPECT_EQ(node->size().value(), size_expected);
}

TEST(MemDriverTest, OpensByOptions) {
  SimWorld world;
  auto body = [&world](Shard&) {
    return open_by_options(world, "size=8T,block_size=512", 8 * kTiB);
  };
  EXPECT_TRUE(world.run(body).ok());
}

TEST(MemDriverTest, RefusesWhatMakesNoSense) {
  for (const char* text : {"size=1000,block_size=512", "block_size=3", "size=8E", "colour=red"}) {
    SimWorld world;
    auto body = [&world, text](Shard&) { return open_by_options(world, text, 0); };
    Result<void> result = world.run(body);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_EQ(result.error().kind, ErrorKind::kInvalid) << text;
  }
}

}  // namespace
}  // namespace ringdisk
