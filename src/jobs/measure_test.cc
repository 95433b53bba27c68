// SPDX-License-Identifier: Apache-2.0
// MeasureJob on simulated shards: as many bytes as one look after the other finds, whatever the
// blocks and however many shards count them; a failure or a cancellation is its result.
#include "jobs/measure.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "base/limits.h"
#include "nodes/fault.h"
#include "nodes/mem.h"
#include "nodes/raw.h"
#include "sim/seeds.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

constexpr uint64_t kDiskBytes = (700 << 20) + 512;  // a dozen regions, and a part of a block
constexpr ByteCount kBlock(64 << 10);

std::shared_ptr<MemContent> drawn_content(Random& random) {
  auto content = std::make_shared<MemContent>(ByteCount(kDiskBytes));
  const std::vector<std::byte> bytes(512, std::byte{0x5a});
  const uint64_t writes = random.below(300);
  for (uint64_t i = 0; i < writes; ++i) {
    const uint64_t at = random.below(kDiskBytes / 512) * 512;
    content->memory().write(HostOffset(at), bytes);
  }
  return content;
}

// A raw disk of `content`; `plan`, which may be null, says what of its requests fails.
std::shared_ptr<DeviceNode> disk_of(Diagnostics& diagnostics, std::shared_ptr<MemContent> content,
                                    std::shared_ptr<FaultPlan> plan) {
  const uint32_t id = diagnostics.add_node("disk.raw");
  const ByteCount size = content->size();
  std::unique_ptr<StorageNode> node = std::make_unique<MemNode>("disk.raw", id, std::move(content));
  if (plan) {
    node = std::make_unique<FaultNode>(std::make_unique<SharedStorage>(std::move(node)), plan);
  }
  auto format = std::make_unique<RawNode>(std::make_unique<SharedStorage>(std::move(node)),
                                          ByteCount(0), size);
  return std::make_shared<DeviceNode>("disk.raw", id, std::move(format), nullptr);
}

Task<uint64_t> count_one_by_one(DeviceNode& disk, uint64_t block_bytes) {
  std::unique_ptr<DeviceQueue> queue = co_await disk.open_queue(Shard::current());
  const GuestOffset end(disk.size().value());
  std::set<uint64_t> blocks;
  for (GuestOffset at(0); at < end;) {
    const BlockStatus status = co_await queue->block_status(GuestRange::between(at, end), 0);
    const uint64_t last = (at + status.length).value() - 1;
    for (uint64_t block = at.value() / block_bytes; block <= last / block_bytes; ++block) {
      if (!status.zero) blocks.insert(block);
    }
    at += status.length;
  }
  co_return blocks.size() * block_bytes;
}

Task<void> expect_same_count(const World& world, DeviceNode& disk, uint64_t block_bytes) {
  MeasureJob job(world, disk, ByteCount(block_bytes));
  CancelSource never;
  const ByteCount counted = co_await job.run(never.token());
  const uint64_t wanted = co_await count_one_by_one(disk, block_bytes);
  EXPECT_EQ(counted.value(), wanted) << "blocks of " << block_bytes;
}

TEST(MeasureJobTest, EveryBlockWithContentIsCountedOnce) {
  sim::for_each_seed(20, [](uint64_t seed) {
    Random random(seed);
    sim::SimWorld world(seed, 1 + static_cast<uint32_t>(random.below(4)));
    std::shared_ptr<DeviceNode> disk = disk_of(world.diagnostics(), drawn_content(random), nullptr);
    const uint64_t block_bytes = uint64_t{512} << random.below(20);
    auto root = [&](Shard&) { return expect_same_count(world.world(), *disk, block_bytes); };
    EXPECT_TRUE(world.run(root).ok());
    auto close = [&](Shard&) { return disk->close(); };
    EXPECT_TRUE(world.run(close).ok());
  });
}

Result<ByteCount> measure(sim::SimWorld& world, DeviceNode& disk, CancelSource& cancel) {
  MeasureJob job(world.world(), disk, kBlock);
  auto root = [&](Shard&) { return job.run(cancel.token()); };
  return world.run(root);
}

TEST(MeasureJobTest, AnEmptyDiskIsNoWork) {
  sim::SimWorld world(1, 2);
  CancelSource never;
  auto nothing = std::make_shared<MemContent>();
  std::shared_ptr<DeviceNode> disk = disk_of(world.diagnostics(), nothing, nullptr);
  EXPECT_EQ(measure(world, *disk, never).value().value(), 0u);
}

TEST(MeasureJobTest, ALookThatFailsIsTheResult) {
  uint64_t failed = 0;
  for (uint64_t n = 0; n < 1000; ++n) {
    Random random(7);
    sim::SimWorld world(n + 1, 3);
    CancelSource never;
    auto plan = std::make_shared<FaultPlan>();
    plan->fail_nth(n, EIO);
    std::shared_ptr<DeviceNode> disk = disk_of(world.diagnostics(), drawn_content(random), plan);
    const Result<ByteCount> counted = measure(world, *disk, never);
    EXPECT_EQ(counted.ok(), plan->failures() == 0) << "operation " << n;
    if (counted.ok()) break;
    EXPECT_EQ(counted.error().errno_value, EIO);
    ++failed;
  }
  EXPECT_GT(failed, 10u) << "nothing was asked";
  EXPECT_LT(failed, 1000u) << "it never came through";
}

TEST(MeasureJobTest, ACancelledOneSaysSo) {
  Random random(3);
  sim::SimWorld world(1, 2);
  CancelSource stop;
  stop.cancel();
  std::shared_ptr<DeviceNode> disk = disk_of(world.diagnostics(), drawn_content(random), nullptr);
  EXPECT_EQ(measure(world, *disk, stop).error().kind, ErrorKind::kCancelled);
}

}  // namespace
}  // namespace ringdisk
