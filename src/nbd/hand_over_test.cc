// SPDX-License-Identifier: Apache-2.0
// Batches that change shards on real threads: one connection, whose requests other shards do a part
// of, while the session's own shard does the rest. What the thread sanitizer is to see: requests,
// their memory and their outcomes going to another thread and back.
#include "nbd/hand_over.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <string>

#include "nbd/server.h"
#include "nbd/simulated_server_test.h"
#include "nbd/test_client.h"
#include "nodes/mem.h"
#include "nodes/raw.h"
#include "nodes/storage_filter.h"
#include "runtime/real_loops_test.h"
#include "sim/real_world.h"

namespace ringdisk::nbd {
namespace {

constexpr uint32_t kShards = 3;
constexpr uint64_t kDiskBytes = 8 << 20;
constexpr uint64_t kBatch = 32;  // requests sent together
// Enough of them, and a bound on the time until then.
constexpr uint64_t kElsewhereWanted = 100;
constexpr uint64_t kRoundsMax = 300;

using ByShard = std::array<std::atomic<uint64_t>, kShards>;

// Counts on which shards it is asked.
class CountingQueue final : public HookedQueue {
 public:
  CountingQueue(std::unique_ptr<StorageQueue> child, std::atomic<uint64_t>& count)
      : HookedQueue(std::move(child)), count_(count) {}

 private:
  Task<int> before(StorageOperation, HostRange) override {
    count_.fetch_add(1, std::memory_order_relaxed);
    co_return 0;
  }
  Task<void> after(StorageOperation, HostRange, int) override { co_return; }

  std::atomic<uint64_t>& count_;
};

class CountingNode final : public StorageFilter {
 public:
  CountingNode(std::unique_ptr<SharedStorage> child, ByShard& by_shard)
      : StorageFilter(std::move(child)), by_shard_(by_shard) {}
  const char* driver() const override { return "counting"; }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override {
    std::unique_ptr<StorageQueue> below = co_await child().open_queue(shard);
    std::unique_ptr<StorageQueue> queue =
        std::make_unique<CountingQueue>(std::move(below), by_shard_[shard.index()]);
    co_return std::move(queue);
  }

 private:
  ByShard& by_shard_;
};

std::unique_ptr<SharedStorage> shared(std::unique_ptr<StorageNode> node) {
  return std::make_unique<SharedStorage>(std::move(node));
}

struct Bench {
  explicit Bench(LoopKind loop) : world(loop, kShards) {
    auto memory = std::make_unique<MemNode>("mem", 1, ByteCount(kDiskBytes));
    auto counting = std::make_unique<CountingNode>(shared(std::move(memory)), by_shard);
    auto raw =
        std::make_unique<RawNode>(shared(std::move(counting)), ByteCount(0), ByteCount(kDiskBytes));
    device = std::make_shared<DeviceNode>("disk", 2, std::move(raw), nullptr);
  }

  // Requests that a shard other than the busiest, which is the session's, has done.
  uint64_t done_elsewhere() const {
    uint64_t all = 0, most = 0;
    for (const auto& count : by_shard) {
      all += count;
      most = std::max<uint64_t>(most, count);
    }
    return all - most;
  }

  sim::RealWorld world;
  TemporaryFolder folder;
  ByShard by_shard{};
  std::shared_ptr<DeviceNode> device;
  CancelSource stop;
};

// Requests of a batch lie apart by more than their length, so that none can do the other's work.
uint64_t offset_of(uint64_t round, uint64_t number) {
  return (number * 131072 + round * 4096) % kDiskBytes;
}

Task<void> write_batch(TestClient& client, uint64_t round) {
  std::string bytes;
  for (uint64_t i = 0; i < kBatch; ++i) {
    const uint64_t at = offset_of(round, i);
    bytes += client.request(1, 0, at, 4096, content(at, 4096, round));
  }
  co_await client.send(std::move(bytes));
  for (uint64_t i = 0; i < kBatch; ++i) {
    TestClient::Reply reply = co_await client.receive_reply();
    EXPECT_EQ(reply.error, 0u);
  }
}

Task<void> read_batch(TestClient& client, uint64_t round) {
  std::string bytes;
  for (uint64_t i = 0; i < kBatch; ++i) bytes += client.request(0, 0, offset_of(round, i), 4096);
  const uint64_t first = client.last_cookie() + 1 - kBatch;
  co_await client.send(std::move(bytes));
  for (uint64_t i = 0; i < kBatch; ++i) {
    TestClient::Reply reply = co_await client.receive_reply();
    EXPECT_EQ(reply.error, 0u);
    const uint64_t at = offset_of(round, reply.cookie - first);
    EXPECT_TRUE(reply.read == content(at, 4096, round)) << at;
  }
}

Task<void> use_one_connection(Bench& bench, Address address) {
  const World& world = bench.world.world();
  std::unique_ptr<TestClient> client = co_await TestClient::connect(world.network, address);
  co_await client->go("disk", false);
  for (uint64_t round = 0; round < kRoundsMax; ++round) {
    co_await write_batch(*client, round);
    co_await read_batch(*client, round);
    if (bench.done_elsewhere() >= kElsewhereWanted) break;
  }
  co_await client->disconnect();
  co_await client->drain();
}

// The client has a shard of its own; the server's home has the session.
Task<void> serve_and_use(Scope& scope, Bench& bench, Server& server) {
  scope.spawn(server.run(bench.stop.token()));
  Shard& client_shard = *bench.world.world().shards[kShards - 1];
  const Address address = server.addresses().front();
  auto use = [&bench, &address] { return use_one_connection(bench, address); };
  Result<void> used = co_await client_shard.call(use).result();
  bench.stop.cancel();
  co_await std::move(used);
}

Task<void> serve(Bench& bench) {
  ServerOptions options;
  options.addresses.push_back(UnixAddress{bench.folder / "socket"});
  options.hand_over.awake = options.hand_over.asleep = Duration::zero();
  std::vector<ExportOptions> exports(1);
  exports[0].name = "disk";
  exports[0].device = bench.device;
  {
    Server server(bench.world.world(), std::move(options), std::move(exports));
    co_await server.listen();
    co_await with_scope(&serve_and_use, bench, server);
  }
  co_await bench.device->close();
}

class HandOverTest : public ::testing::TestWithParam<LoopKind> {};

TEST_P(HandOverTest, OneConnectionUsesSeveralThreadsAndKeepsItsBytes) {
  Bench bench(GetParam());
  if (!bench.world.is_started()) GTEST_SKIP() << "this kernel or sandbox has no io_uring";
  auto root = [&bench](Shard&) { return serve(bench); };
  Result<void> done = bench.world.run(root);
  EXPECT_TRUE(done.ok()) << bench.world.diagnostics().describe(done.ok() ? Error() : done.error());
  EXPECT_GE(bench.done_elsewhere(), kElsewhereWanted) << "nothing was handed over";
}

RINGDISK_ON_BOTH_LOOPS(HandOverTest);

// --- the arithmetic ------------------------------------------------------------------------------

TEST(WorkEstimateTest, FollowsWhatWorkCostsAndForgetsAStall) {
  WorkEstimate estimate;
  EXPECT_EQ(estimate.of(1000).count(), 0);
  for (int i = 0; i < 100; ++i) estimate.add(100, std::chrono::microseconds(70));
  EXPECT_NEAR(static_cast<double>(estimate.of(1000).count()), 700'000.0, 10'000.0);
  estimate.add(0, std::chrono::hours(1));
  estimate.add(100, std::chrono::hours(24));  // counts as a second
  for (int i = 0; i < 100; ++i) estimate.add(100, std::chrono::microseconds(70));
  EXPECT_NEAR(static_cast<double>(estimate.of(1000).count()), 700'000.0, 100'000.0);
}

}  // namespace
}  // namespace ringdisk::nbd
