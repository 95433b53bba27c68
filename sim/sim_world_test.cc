// SPDX-License-Identifier: Apache-2.0
// The simulated world: results, virtual time, drawn orders, hangs.
#include "sim/sim_world.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "async/event.h"

namespace ringdisk::sim {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

Task<int> answer(Shard&) { co_return 42; }

TEST(SimWorldTest, GivesTheResultOfTheRootTask) {
  SimWorld world(1);
  Result<int> result = world.run(&answer);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result.value(), 42);
}

Task<void> end_with_enospc(Shard&) { co_await fail(Error::from_errno(28, "write", 7)); }

TEST(SimWorldTest, GivesTheErrorOfTheRootTask) {
  SimWorld world(1);
  Result<void> result = world.run(&end_with_enospc);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().errno_value, 28);
  EXPECT_EQ(result.error().offset, 7u);
}

Task<Duration> sleep_two_hours(Shard& shard) {
  Instant start = shard.clock().now();
  Result<void> woken = co_await shard.sleep(hours(2));
  co_await std::move(woken);
  Duration slept = shard.clock().now() - start;
  co_return slept;
}

TEST(SimWorldTest, TimePassesOnlyWhileNothingCanRun) {
  SimWorld world(1);
  Result<Duration> result = world.run(&sleep_two_hours);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result.value(), hours(2));
}

// Three sleepers on each of two shards note the order in which they wake at the same time.
struct Trace {
  std::string order;
};
Task<void> note(Shard& shard, Trace& trace, char name) {
  Result<void> woken = co_await shard.sleep(milliseconds(1));
  co_await std::move(woken);
  trace.order += name;
}
Task<void> note_three(Shard& shard, Trace& trace) {
  auto one = [&shard, &trace](size_t which) {
    return note(shard, trace, static_cast<char>((shard.index() == 0 ? 'a' : 'A') + which));
  };
  co_await when_all(3, one);
}
std::string order_with(uint64_t seed) {
  SimWorld world(seed, 2);
  Trace trace;
  auto body = [&trace](Shard& shard) { return note_three(shard, trace); };
  EXPECT_TRUE(world.run_on_all(body).ok());
  return trace.order;
}

TEST(SimWorldTest, TheSameSeedGivesTheSameOrder) {
  for (uint64_t seed = 1; seed < 20; ++seed) EXPECT_EQ(order_with(seed), order_with(seed));
}

TEST(SimWorldTest, SeedsGiveManyOrdersOverBothShards) {
  std::vector<std::string> orders;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    std::string order = order_with(seed);
    if (std::find(orders.begin(), orders.end(), order) == orders.end()) orders.push_back(order);
  }
  // 6! = 720 orders are possible.
  EXPECT_GT(orders.size(), 60u);
}

Task<uint32_t> where_am_i() { co_return Shard::current().index(); }
Task<std::vector<uint32_t>> visit_all(SimWorld& world) {
  std::vector<uint32_t> visited;
  for (Shard* shard : world.world().shards) {
    uint32_t index = co_await shard->call(&where_am_i);
    visited.push_back(index);
  }
  co_return std::move(visited);
}

TEST(SimWorldTest, CallsReachEveryShardAndComeBack) {
  for_each_seed(20, [](uint64_t seed) {
    SimWorld world(seed, 4);
    auto body = [&world](Shard&) { return visit_all(world); };
    Result<std::vector<uint32_t>> visited = world.run_on(2, body);
    ASSERT_TRUE(visited.ok());
    EXPECT_EQ(visited.value(), (std::vector<uint32_t>{0, 1, 2, 3}));
  });
}

Task<void> one_job(SimWorld& world, std::string& order, char name) {
  auto job = [&order, name](Blocking) -> Result<void> {
    EXPECT_FALSE(Executor::has_current()) << "a thread of the pool belongs to no shard";
    order += name;
    return {};
  };
  co_await run_blocking(world.world().blocking, job);
}
Task<void> three_jobs(SimWorld& world, std::string& order) {
  auto one = [&world, &order](size_t which) {
    return one_job(world, order, static_cast<char>('a' + which));
  };
  co_await when_all(3, one);
}

TEST(SimWorldTest, BlockingJobsRunInDrawnOrder) {
  std::vector<std::string> orders;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SimWorld world(seed, 2);
    std::string order;
    auto body = [&world, &order](Shard&) { return three_jobs(world, order); };
    ASSERT_TRUE(world.run(body).ok());
    if (std::find(orders.begin(), orders.end(), order) == orders.end()) orders.push_back(order);
  }
  EXPECT_EQ(orders.size(), 6u);
}

Task<void> wait_for_nothing(Shard&) {
  Event never;
  co_await never.wait();
}

TEST(SimWorldDeathTest, AWorldInWhichNobodyWillEverGoOnNamesItsSeed) {
  EXPECT_DEATH(
      {
        SimWorld world(77, 2);
        (void)world.run(&wait_for_nothing);
      },
      "hangs: nothing can run.*RINGDISK_SEED=77");
}

Task<void> sleep_again_and_again(Shard& shard) {
  for (;;) (void)co_await shard.sleep(hours(1));
}

TEST(SimWorldDeathTest, AWorldThatOnlyWaitsOnIsCalledAHang) {
  EXPECT_DEATH(
      {
        SimWorld world(78);
        (void)world.run(&sleep_again_and_again);
      },
      "hangs: virtual time passes without end.*RINGDISK_SEED=78");
}

}  // namespace
}  // namespace ringdisk::sim
