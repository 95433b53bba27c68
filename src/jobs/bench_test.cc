// SPDX-License-Identifier: Apache-2.0
// BenchJob on simulated shards: which requests reach the disk, how many at a time, when flushes
// happen, and what a failure or a cancellation leaves.
#include "jobs/bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <vector>

#include "nodes/fault.h"
#include "nodes/mem.h"
#include "nodes/raw.h"
#include "nodes/storage_filter.h"
#include "sim/seeds.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using limits::kKiB;
using limits::kMiB;

// What a storage was asked for, in the order of the simulator's one thread.
struct Record {
  struct Entry {
    StorageOperation operation;
    uint64_t offset, length;
  };
  std::vector<Entry> begun;
  uint32_t in_flight = 0, in_flight_max = 0;
  uint32_t at_flush_max = 0;  // requests in flight when a flush begins
  std::map<uint32_t, uint64_t> by_shard;

  uint64_t count(StorageOperation operation) const {
    return static_cast<uint64_t>(std::count_if(begun.begin(), begun.end(), [&](const Entry& entry) {
      return entry.operation == operation;
    }));
  }
};

// Notes each request, and lets it take some time.
class RecordingQueue final : public HookedQueue {
 public:
  RecordingQueue(std::unique_ptr<StorageQueue> child, Record& record, Shard& shard)
      : HookedQueue(std::move(child)), record_(record), shard_(shard) {}

 private:
  Task<int> before(StorageOperation operation, HostRange range) override {
    record_.begun.push_back({operation, range.offset.value(), range.length.value()});
    ++record_.by_shard[shard_.index()];
    if (operation == StorageOperation::kFlush) {
      record_.at_flush_max = std::max(record_.at_flush_max, record_.in_flight);
    }
    record_.in_flight_max = std::max(record_.in_flight_max, ++record_.in_flight);
    Result<void> slept =
        co_await shard_.sleep(std::chrono::microseconds(10 + record_.begun.size() % 7));
    EXPECT_TRUE(slept.ok());
    co_return 0;
  }
  Task<void> after(StorageOperation, HostRange, int) override {
    --record_.in_flight;
    co_return;
  }

  Record& record_;
  Shard& shard_;
};

class RecordingNode final : public StorageFilter {
 public:
  RecordingNode(std::unique_ptr<SharedStorage> child, Record& record)
      : StorageFilter(std::move(child)), record_(record) {}
  const char* driver() const override { return "recording"; }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override {
    std::unique_ptr<StorageQueue> below = co_await child().open_queue(shard);
    std::unique_ptr<StorageQueue> queue =
        std::make_unique<RecordingQueue>(std::move(below), record_, shard);
    co_return std::move(queue);
  }

 private:
  Record& record_;
};

std::unique_ptr<SharedStorage> shared(std::unique_ptr<StorageNode> node) {
  return std::make_unique<SharedStorage>(std::move(node));
}

struct Disk {
  std::shared_ptr<MemContent> content;
  Record record;
  std::shared_ptr<FaultPlan> plan = std::make_shared<FaultPlan>();
  std::unique_ptr<DeviceNode> device;

  explicit Disk(uint64_t size) : content(std::make_shared<MemContent>(ByteCount(size))) {
    auto faulty =
        std::make_unique<FaultNode>(shared(std::make_unique<MemNode>("disk", 1, content)), plan);
    auto recording = std::make_unique<RecordingNode>(shared(std::move(faulty)), record);
    auto raw =
        std::make_unique<RawNode>(shared(std::move(recording)), ByteCount(0), ByteCount(size));
    device = std::make_unique<DeviceNode>("disk", 1, std::move(raw), nullptr);
  }
};

// `count` requests, `depth` of them in flight.
BenchOptions reads(uint64_t count, uint32_t depth) {
  BenchOptions options;
  options.count = count;
  options.depth = depth;
  return options;
}
BenchOptions writes(uint64_t count, uint32_t depth) {
  BenchOptions options = reads(count, depth);
  options.write = true;
  return options;
}

Result<Duration> run_bench(sim::SimWorld& world, Disk& disk, BenchOptions options) {
  BenchJob job(world.world(), *disk.device, options);
  CancelSource never;
  auto body = [&](Shard&) { return job.run(never.token()); };
  Result<Duration> took = world.run(body);
  if (took.ok()) {
    EXPECT_EQ(job.started(), options.count);
  }
  return took;
}

TEST(BenchTest, EveryRequestIsMadeOnceAtItsPlaceByAllShards) {
  sim::for_each_seed(10, [](uint64_t seed) {
    sim::SimWorld world(seed, 3);
    Disk disk(kMiB);
    BenchOptions options = reads(300, 10);
    options.offset = 4 * kKiB;
    ASSERT_TRUE(run_bench(world, disk, options).ok());
    ASSERT_EQ(disk.record.begun.size(), 300u);
    std::map<uint64_t, uint64_t> wanted, found;
    for (uint64_t i = 0; i < 300; ++i) ++wanted[(4 * kKiB + i * 4096) % kMiB];
    for (const Record::Entry& entry : disk.record.begun) {
      EXPECT_EQ(entry.operation, StorageOperation::kRead);
      EXPECT_EQ(entry.length, 4096u);
      ++found[entry.offset];
    }
    EXPECT_EQ(found, wanted);
    EXPECT_EQ(disk.record.in_flight_max, 10u) << "the depth is that of all shards together";
    EXPECT_EQ(disk.record.by_shard.size(), 3u);
  });
}

TEST(BenchTest, ADepthBelowTheShardsUsesAsManyShards) {
  sim::SimWorld world(1, 4);
  Disk disk(kMiB);
  BenchOptions options = reads(100, 2);
  BenchJob job(world.world(), *disk.device, options);
  EXPECT_EQ(job.shards_used(), 2u);
  ASSERT_TRUE(run_bench(world, disk, options).ok());
  EXPECT_EQ(disk.record.in_flight_max, 2u);
}

TEST(BenchTest, OneQueueAsksFromOneShard) {
  sim::SimWorld world(1, 4);
  Disk disk(kMiB);
  BenchOptions options = reads(100, 8);
  options.queues = 1;
  ASSERT_TRUE(run_bench(world, disk, options).ok());
  EXPECT_EQ(disk.record.in_flight_max, 8u);
  EXPECT_EQ(disk.record.by_shard.size(), 1u);
}

TEST(BenchTest, ARequestThatWouldCrossTheEndLiesAtTheBeginning) {
  sim::SimWorld world(1, 1);
  Disk disk(10 * kKiB);
  BenchOptions options = reads(7, 1);
  options.buffer_bytes = 4 * kKiB;
  options.step_bytes = 3 * kKiB;
  ASSERT_TRUE(run_bench(world, disk, options).ok());
  std::vector<uint64_t> offsets;
  for (const Record::Entry& entry : disk.record.begun) offsets.push_back(entry.offset / kKiB);
  // 0 3 6 9 12 15 18, modulo 10; from 7 on a request would cross the end.
  EXPECT_EQ(offsets, (std::vector<uint64_t>{0, 3, 6, 0, 2, 5, 0}));
}

TEST(BenchTest, WritesHaveThePatternAndNothingElseChanges) {
  sim::SimWorld world(1, 2);
  Disk disk(kMiB);
  BenchOptions options = writes(8, 4);
  options.step_bytes = 8 * kKiB;
  options.pattern = std::byte{0x5a};
  ASSERT_TRUE(run_bench(world, disk, options).ok());
  std::vector<std::byte> bytes(kMiB);
  disk.content->memory().read(HostOffset(0), bytes);
  for (size_t at = 0; at < bytes.size(); ++at) {
    const bool is_written = at < 64 * kKiB && at % (8 * kKiB) < 4 * kKiB;
    ASSERT_EQ(bytes[at], is_written ? std::byte{0x5a} : std::byte{0}) << at;
  }
}

TEST(BenchTest, FlushesComeAfterSoManyRequestsWithNothingInFlight) {
  sim::SimWorld world(1, 3);
  Disk disk(kMiB);
  BenchOptions options = writes(25, 4);
  options.flush_interval = 10;
  ASSERT_TRUE(run_bench(world, disk, options).ok());
  EXPECT_EQ(disk.record.at_flush_max, 0u);
  EXPECT_EQ(disk.record.by_shard.size(), 1u) << "a drain over several shards is not measured";
  std::vector<size_t> flushes;
  for (size_t i = 0; i < disk.record.begun.size(); ++i) {
    if (disk.record.begun[i].operation == StorageOperation::kFlush) flushes.push_back(i);
  }
  // 5 requests, a flush, 10 requests, a flush, 10 requests: as qemu-img counts, from the end.
  EXPECT_EQ(flushes, (std::vector<size_t>{5, 16}));
  EXPECT_EQ(disk.record.count(StorageOperation::kWrite), 25u);
}

TEST(BenchTest, WithoutADrainFlushesRunBesideTheRequests) {
  sim::SimWorld world(1, 2);
  Disk disk(kMiB);
  BenchOptions options = writes(200, 8);
  options.flush_interval = 20;
  options.drain = false;
  ASSERT_TRUE(run_bench(world, disk, options).ok());
  EXPECT_EQ(disk.record.count(StorageOperation::kFlush), 9u);
  EXPECT_EQ(disk.record.count(StorageOperation::kWrite), 200u);
  EXPECT_GT(disk.record.at_flush_max, 0u);
}

TEST(BenchTest, NoRequestsTakeNoTime) {
  sim::SimWorld world(1, 2);
  Disk disk(kMiB);
  BenchOptions options;
  options.count = 0;
  Result<Duration> took = run_bench(world, disk, options);
  ASSERT_TRUE(took.ok());
  EXPECT_TRUE(disk.record.begun.empty());
}

TEST(BenchTest, TheFirstFailureEndsItOnAllShards) {
  sim::for_each_seed(10, [](uint64_t seed) {
    sim::SimWorld world(seed, 3);
    Disk disk(kMiB);
    disk.plan->fail_nth(seed * 7, EIO);
    BenchOptions options = reads(100'000, 9);
    Result<Duration> took = run_bench(world, disk, options);
    ASSERT_FALSE(took.ok());
    EXPECT_EQ(took.error().errno_value, EIO);
    EXPECT_LT(disk.record.begun.size(), seed * 7 + 40) << "the others went on";
    EXPECT_EQ(disk.record.in_flight, 0u);
  });
}

Task<void> cancel_after(Shard& shard, CancelSource& source, Duration time) {
  Result<void> slept = co_await shard.sleep(time);
  EXPECT_TRUE(slept.ok());
  source.cancel();
}

Task<Duration> run_and_cancel(Scope& scope, BenchJob& job) {
  CancelSource source;
  scope.spawn(cancel_after(Shard::current(), source, std::chrono::milliseconds(1)));
  Result<Duration> took = co_await job.run(source.token()).result();
  // The source outlives the child that cancels it: it has done so by now.
  EXPECT_TRUE(source.is_cancelled());
  co_return std::move(took);
}

TEST(BenchTest, ACancelledRunFinishesWhatRunsAndSaysHowFarItCame) {
  sim::for_each_seed(5, [](uint64_t seed) {
    sim::SimWorld world(seed, 2);
    Disk disk(kMiB);
    BenchOptions options = reads(1'000'000, 4);
    BenchJob job(world.world(), *disk.device, options);
    auto body = [&job](Scope& scope) { return run_and_cancel(scope, job); };
    auto root = [&body](Shard&) { return with_scope(body); };
    Result<Duration> took = world.run(root);
    ASSERT_FALSE(took.ok());
    EXPECT_EQ(took.error().kind, ErrorKind::kCancelled);
    EXPECT_EQ(job.started(), disk.record.begun.size());
    EXPECT_GT(job.started(), 100u);
    EXPECT_LT(job.started(), 10'000u);
    EXPECT_EQ(disk.record.in_flight, 0u);
  });
}

}  // namespace
}  // namespace ringdisk
