// SPDX-License-Identifier: Apache-2.0
// Offload: every job is computed once and heard of at home, on simulated shards in any order and on
// real threads; helpers come when it pays, and only then.
#include "runtime/offload.h"

#include <vector>

#include "async/scope.h"
#include "async/yield.h"
#include "runtime/next_turn.h"
#include "runtime/real_loops_test.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

constexpr uint64_t kLong = 10 * kOffloadSliceNs;

// Counts its computations; burns some time, so that threads meet.
class CountingJob final : public OffloadJob {
 public:
  explicit CountingJob(std::vector<std::atomic<uint32_t>>& by_shard, uint32_t turns = 0)
      : by_shard_(by_shard), turns_(turns) {}
  void compute() override {
    for (uint32_t i = 0; i < turns_; ++i) __asm__ volatile("" : : : "memory");
    ++computed;
    by_shard_[Shard::current().index()].fetch_add(1, std::memory_order_relaxed);
  }
  uint32_t computed = 0;  // handed on with the job

 private:
  std::vector<std::atomic<uint32_t>>& by_shard_;
  const uint32_t turns_;
};

struct Stage {
  explicit Stage(std::span<Shard* const> shards) : offload(shards), by_shard(shards.size()) {}
  Offload offload;
  std::vector<std::atomic<uint32_t>> by_shard;

  uint32_t total() const {
    uint32_t sum = 0;
    for (const std::atomic<uint32_t>& count : by_shard) sum += count.load();
    return sum;
  }
};

Task<void> run_group(Stage& stage, size_t jobs, uint64_t cost_ns, uint32_t turns = 0) {
  std::vector<CountingJob> memory;
  memory.reserve(jobs);
  OffloadGroup group;
  for (size_t i = 0; i < jobs; ++i) group.add(memory.emplace_back(stage.by_shard, turns), cost_ns);
  Shard& home = Shard::current();
  co_await stage.offload.run(group);
  EXPECT_TRUE(home.is_current());
  for (const CountingJob& job : memory) EXPECT_EQ(job.computed, 1u);
}

Task<void> run_groups(Stage& stage, size_t groups, uint64_t cost_ns) {
  auto one = [&stage, cost_ns](size_t i) { return run_group(stage, 1 + i % 16, cost_ns); };
  co_await when_all(groups, one);
}

TEST(OffloadTest, EachJobIsComputedOnceInWhateverOrderShardsRun) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(seed);
    sim::SimWorld world(seed, 4);
    Stage stage(world.world().shards);
    auto body = [&stage](Shard&) { return run_groups(stage, 40, kLong); };
    ASSERT_TRUE(world.run_on_all(body).ok());
    auto stop = [&stage](Shard&) { return stage.offload.stop(); };
    ASSERT_TRUE(world.run(stop).ok());
    EXPECT_EQ(stage.total(), 4u * (2 * 136 + 36));
  }
}

TEST(OffloadTest, IdleShardsComeWhenItPays) {
  sim::SimWorld world(1, 4);
  Stage stage(world.world().shards);
  auto body = [&stage](Shard&) { return run_groups(stage, 40, kLong); };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_EQ(stage.total(), 308u);
  for (const std::atomic<uint32_t>& count : stage.by_shard) EXPECT_GT(count.load(), 20u);
  EXPECT_EQ(stage.offload.helped(), 308u - stage.by_shard[0].load());
}

TEST(OffloadTest, NobodyComesForLittle) {
  sim::SimWorld world(1, 4);
  Stage stage(world.world().shards);
  // A single job, however long: whoever came would find it done.
  auto single = [&stage](Shard&) { return run_group(stage, 1, kLong); };
  ASSERT_TRUE(world.run(single).ok());
  auto cheap = [&stage](Shard&) { return run_group(stage, 16, kHandOverNs / 2); };
  ASSERT_TRUE(world.run(cheap).ok());
  EXPECT_EQ(stage.offload.helped(), 0u);
  EXPECT_EQ(stage.by_shard[0].load(), 17u);
}

// More than a ring holds: what does not fit is computed at once.
TEST(OffloadTest, AFullRingIsNoReasonToWait) {
  sim::SimWorld world(2, 2);
  Stage stage(world.world().shards);
  auto body = [&stage](Shard&) { return run_groups(stage, 160, 1); };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_EQ(stage.total(), 10u * 136);
}

Task<void> keep_busy(Shard& shard, const bool& done) {
  while (!done) {
    co_await NextTurn(shard);
    co_await Yield();
  }
}
Task<void> run_beside_busy_shards(Stage& stage, sim::SimWorld& world) {
  bool done = false;
  auto busy = [&](Shard& shard) { return keep_busy(shard, done); };
  auto one = [&](size_t i) -> Task<void> {
    if (i == 0) {
      for (int turn = 0; turn < 50; ++turn) co_await NextTurn(world.shard(0));
      co_await run_groups(stage, 30, kLong);
      done = true;
    } else {
      auto there = [&] { return busy(world.shard(static_cast<uint32_t>(i))); };
      co_await world.shard(static_cast<uint32_t>(i)).call(there);
    }
  };
  co_await when_all(3, one);
}

TEST(OffloadTest, BusyShardsAreLeftAlone) {
  sim::SimWorld world(3, 3);
  Stage stage(world.world().shards);
  auto body = [&](Shard&) { return run_beside_busy_shards(stage, world); };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_GT(stage.total(), 200u);
  EXPECT_LT(stage.offload.helped(), stage.total() / 4);
}

class OffloadThreadsTest : public RealLoopsTest {};

// On real threads the thread sanitizer looks at rings, invitations and completions.
TEST_P(OffloadThreadsTest, AllShardsComputeAtOnceAndHelpEachOther) {
  auto body = [&](Shard&) -> Task<void> {
    std::vector<Shard*> shards;
    for (size_t i = 0; i < shard_count(); ++i) shards.push_back(&shard(i));
    Stage stage(shards);
    auto one = [&](size_t i) {
      // Shard 2 has nothing of its own.
      auto there = [&stage, i] { return run_groups(stage, i == 2 ? 1 : 300, kLong); };
      return shard(i).call(there);
    };
    co_await when_all(shard_count(), one);
    EXPECT_EQ(stage.total(), 2u * (18 * 136 + 78) + 1);
    co_await stage.offload.stop();
  };
  ASSERT_TRUE(run(3, body).ok());
}

INSTANTIATE_TEST_SUITE_P(Loops, OffloadThreadsTest,
                         ::testing::Values(LoopKind::kUring, LoopKind::kEpoll),
                         [](const auto& loop) { return name_of_loop(loop.param); });

}  // namespace
}  // namespace ringdisk
