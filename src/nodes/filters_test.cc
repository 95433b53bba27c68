// SPDX-License-Identifier: Apache-2.0
// The filters delay and fault, over mem, in virtual time.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "nodes/delay.h"
#include "nodes/fault.h"
#include "nodes/mem.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using sim::SimWorld;
using std::chrono::microseconds;
using std::chrono::milliseconds;

std::unique_ptr<SharedStorage> new_mem() {
  return std::make_unique<SharedStorage>(std::make_unique<MemNode>("mem", 7, ByteCount(65536)));
}

Task<void> write_block(StorageQueue& queue, uint64_t offset, uint8_t content) {
  std::vector<std::byte> bytes(512, std::byte{content});
  co_await queue.write(HostOffset(offset), ConstBuffers(Bytes(bytes)), WriteOptions());
}

Task<uint8_t> read_block(StorageQueue& queue, uint64_t offset) {
  std::vector<std::byte> bytes(512);
  co_await queue.read(HostOffset(offset), MutableBuffers(MutableBytes(bytes)));
  co_return static_cast<uint8_t>(bytes[511]);
}

// Each operation once, in the order of StorageOperation.
Task<void> do_everything(Shard& shard, StorageNode& node) {
  std::unique_ptr<StorageQueue> queue = co_await node.open_queue(shard);
  HostRange range(HostOffset(512), ByteCount(1024));
  uint8_t before = co_await read_block(*queue, 0);
  EXPECT_EQ(before, 0);
  co_await write_block(*queue, 0, 1);
  co_await queue->write_zeroes(range, ZeroOptions());
  co_await queue->discard(range);
  co_await queue->flush();
  StorageExtent extent = co_await queue->find_extent(range);
  EXPECT_FALSE(extent.length.is_zero());
  co_await queue->resize(ByteCount(131072));
  co_await queue->allocate(range);
}

// --- delay
// ----------------------------------------------------------------------------------------

TEST(DelayNodeTest, EveryOperationTakesItsTime) {
  SimWorld world;
  DelayPlan plan;
  plan.shortest = plan.longest = milliseconds(10);
  DelayNode node(new_mem(), plan);
  Instant start = world.clock().now();
  auto body = [&node](Shard& shard) { return do_everything(shard, node); };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_EQ(world.clock().now() - start, kStorageOperations * milliseconds(10));
}

TEST(DelayNodeTest, OnlyChosenOperationsWait) {
  SimWorld world;
  DelayPlan plan;
  plan.operations = *StorageOperations::parse("write+flush");
  plan.shortest = plan.longest = milliseconds(10);
  plan.after = true;
  DelayNode node(new_mem(), plan);
  Instant start = world.clock().now();
  auto body = [&node](Shard& shard) { return do_everything(shard, node); };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_EQ(world.clock().now() - start, milliseconds(20));
}

// Two writes to one block, asked for at the same time: which one stays depends on the drawn delays.
Task<uint8_t> race(Shard& shard, StorageNode& node) {
  std::unique_ptr<StorageQueue> queue = co_await node.open_queue(shard);
  auto one = [&queue](size_t which) {
    return write_block(*queue, 0, static_cast<uint8_t>(which + 1));
  };
  co_await when_all(2, one);
  uint8_t winner = co_await read_block(*queue, 0);
  co_return winner;
}

TEST(DelayNodeTest, SeedsDecideInWhichOrderOperationsComplete) {
  uint32_t wins[3] = {};
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    uint8_t first = 0;
    for (int again = 0; again < 2; ++again) {
      SimWorld world(1);
      DelayPlan plan;
      plan.shortest = microseconds(1);
      plan.longest = milliseconds(1);
      plan.seed = seed;
      DelayNode node(new_mem(), plan);
      auto body = [&node](Shard& shard) { return race(shard, node); };
      Result<uint8_t> winner = world.run(body);
      ASSERT_TRUE(winner.ok());
      if (again == 0) first = winner.value();
      EXPECT_EQ(winner.value(), first) << "seed " << seed << " gave two answers";
    }
    ASSERT_TRUE(first == 1 || first == 2);
    ++wins[first];
  }
  EXPECT_GT(wins[1], 5u);
  EXPECT_GT(wins[2], 5u);
}

// --- fault
// ----------------------------------------------------------------------------------------

TEST(FaultNodeTest, TheSweepFailsEachOperationOnceAndEnds) {
  auto plan = std::make_shared<FaultPlan>();
  uint64_t n = 0;
  for (;; ++n) {
    ASSERT_LE(n, kStorageOperations);
    SimWorld world;
    FaultNode node(new_mem(), plan);
    plan->fail_nth(n, ENOSPC);
    auto body = [&node](Shard& shard) { return do_everything(shard, node); };
    Result<void> result = world.run(body);
    if (plan->failures() == 0) {
      EXPECT_TRUE(result.ok());
      break;
    }
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(plan->failures(), 1u);
    EXPECT_EQ(result.error().errno_value, ENOSPC);
    EXPECT_EQ(result.error().kind, ErrorKind::kNoSpace);
    EXPECT_EQ(result.error().node, 7u);
    EXPECT_EQ(result.error().operation, name_of(static_cast<StorageOperation>(n)));
  }
  EXPECT_EQ(n, kStorageOperations);
}

Task<uint8_t> write_and_look(Shard& shard, FaultNode& node) {
  std::unique_ptr<StorageQueue> queue = co_await node.open_queue(shard);
  Result<void> written = co_await write_block(*queue, 4096, 9).result();
  EXPECT_FALSE(written.ok());
  uint8_t there = co_await read_block(*queue, 4096);
  co_return there;
}

TEST(FaultNodeTest, AFailureBeforeLeavesTheStorageAloneAndOneAfterDoesNot) {
  for (bool after : {false, true}) {
    SimWorld world;
    auto plan = std::make_shared<FaultPlan>();
    plan->fail_nth(0, EIO, after);
    FaultNode node(new_mem(), plan);
    auto body = [&node](Shard& shard) { return write_and_look(shard, node); };
    Result<uint8_t> there = world.run(body);
    ASSERT_TRUE(there.ok());
    EXPECT_EQ(there.value(), after ? 9 : 0);
  }
}

Task<void> write_three_places(Shard& shard, FaultNode& node, std::vector<bool>& ok) {
  std::unique_ptr<StorageQueue> queue = co_await node.open_queue(shard);
  for (uint64_t offset : {0, 8192, 8192, 8192}) {
    Result<void> written = co_await write_block(*queue, offset, 1).result();
    ok.push_back(written.ok());
  }
  uint8_t there = co_await read_block(*queue, 8192);
  EXPECT_EQ(there, 1);
}

TEST(FaultNodeTest, RulesPickKindRangeAndNumber) {
  SimWorld world;
  auto plan = std::make_shared<FaultPlan>();
  FaultRule rule;
  rule.operations = StorageOperation::kWrite;
  rule.range = HostRange(HostOffset(8500), ByteCount(1));
  rule.number = 1;
  rule.count = 1;
  plan->add(rule);
  FaultNode node(new_mem(), plan);
  std::vector<bool> ok;
  auto body = [&](Shard& shard) { return write_three_places(shard, node, ok); };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_EQ(ok, (std::vector<bool>{true, true, false, true}));
  EXPECT_EQ(plan->operations(), 5u);
  EXPECT_EQ(plan->failures(), 1u);
}

Task<void> flush_often(Shard& shard, FaultNode& node) {
  std::unique_ptr<StorageQueue> queue = co_await node.open_queue(shard);
  for (int i = 0; i < 10; ++i) {
    Result<void> flushed = co_await queue->flush().result();
    if (flushed.ok()) continue;
    EXPECT_EQ(flushed.error().errno_value, EIO);
  }
}

TEST(FaultNodeTest, QueuesOfAllShardsCountTogether) {
  SimWorld world(1, 4);
  auto plan = std::make_shared<FaultPlan>();
  FaultRule rule;
  rule.number = 35;
  rule.count = FaultRule::kForEver;
  plan->add(rule);
  FaultNode node(new_mem(), plan);
  auto body = [&node](Shard& shard) { return flush_often(shard, node); };
  ASSERT_TRUE(world.run_on_all(body).ok());
  EXPECT_EQ(plan->operations(), 40u);
  EXPECT_EQ(plan->failures(), 5u);
}

// --- options
// --------------------------------------------------------------------------------------

Task<void> open_and_use(SimWorld& world, const StorageDriver& driver, std::string text) {
  Options options = co_await Options::parse(text, world.diagnostics());
  std::unique_ptr<StorageNode> node = co_await driver.open(world.world(), options, OpenMode());
  EXPECT_EQ(node->driver(), driver.name);
  EXPECT_EQ(node->size().value(), 65536u);
  co_await do_everything(world.shard(0), *node);
}

TEST(FilterDriversTest, OpenTheirChildByOptions) {
  SimWorld world;
  Drivers drivers;
  drivers.storages.push_back(mem_driver());
  StorageDriver delay = delay_driver(drivers);
  auto slow = [&](Shard&) {
    return open_and_use(world, delay,
                        "operations=read,shortest_us=500,longest_us=500,when=after,seed=3,"
                        "file.driver=mem,file.size=64k");
  };
  Instant start = world.clock().now();
  ASSERT_TRUE(world.run(slow).ok());
  EXPECT_EQ(world.clock().now() - start, microseconds(500));

  StorageDriver fault = fault_driver(drivers);
  auto failing = [&](Shard&) {
    return open_and_use(world, fault, "operations=flush,errno=EROFS,file.driver=mem,file.size=64k");
  };
  Result<void> failed = world.run(failing);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().errno_value, EROFS);
}

TEST(FilterDriversTest, RefuseWhatMakesNoSense) {
  for (const char* text :
       {"operations=reed,file.driver=mem", "when=never,file.driver=mem", "number=x",
        "file.driver=nothing", "colour=red,file.driver=mem", "file.driver=mem,file.colour=red"}) {
    SimWorld world;
    Drivers drivers;
    drivers.storages.push_back(mem_driver());
    StorageDriver fault = fault_driver(drivers);
    auto body = [&](Shard&) { return open_and_use(world, fault, text); };
    EXPECT_FALSE(world.run(body).ok()) << text;
  }
}

}  // namespace
}  // namespace ringdisk
