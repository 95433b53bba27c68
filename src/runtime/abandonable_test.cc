// SPDX-License-Identifier: Apache-2.0
// run_abandonable: who is told to stop goes on, and what he left computes to its end.
#include "runtime/abandonable.h"

#include <gtest/gtest.h>

#include <memory>

#include "async/scope.h"
#include "async/yield.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

// Counts its runs; `alive` tells whether it is still there.
struct Counted {
  int* runs;
  std::shared_ptr<int> alive;
  Result<int> operator()(Blocking) const {
    ++*runs;
    return 42;
  }
};

struct Trial {
  sim::SimWorld world;
  CancelSource stop;
  int runs = 0;
  std::shared_ptr<int> alive = std::make_shared<int>(0);
  Result<int> result = 0;

  explicit Trial(uint64_t seed) : world(seed) {}
};

Task<void> wait_for(Trial& trial) {
  Counted work{&trial.runs, trial.alive};
  BlockingPool& pool = trial.world.world().blocking;
  trial.result = co_await run_abandonable(pool, trial.stop.token(), std::move(work)).result();
}

Task<void> cancel_after(Trial& trial, uint64_t turns) {
  for (uint64_t i = 0; i < turns; ++i) co_await Yield();
  trial.stop.cancel();
}

Task<void> wait_and_cancel(Scope& scope, Trial& trial, uint64_t turns) {
  scope.spawn(cancel_after(trial, turns));
  co_await wait_for(trial);
}

TEST(Abandonable, GivesItsResultWhereNobodyStops) {
  Trial trial(1);
  auto root = [&](Shard&) { return wait_for(trial); };
  ASSERT_TRUE(trial.world.run(root).ok());
  ASSERT_TRUE(trial.result.ok());
  EXPECT_EQ(trial.result.value(), 42);
  EXPECT_EQ(trial.alive.use_count(), 1);
}

TEST(Abandonable, IsNotBegunAfterAStop) {
  Trial trial(1);
  trial.stop.cancel();
  auto root = [&](Shard&) { return wait_for(trial); };
  ASSERT_TRUE(trial.world.run(root).ok());
  ASSERT_FALSE(trial.result.ok());
  EXPECT_EQ(trial.result.error().kind, ErrorKind::kCancelled);
  EXPECT_EQ(trial.runs, 0);
  EXPECT_EQ(trial.alive.use_count(), 1);
}

// In whatever order: stopped before it ran, while its result is on the way, or too late.
TEST(Abandonable, RunsOnceAndIsGoneAfterwardsWheneverItIsAbandoned) {
  int cancelled = 0, finished = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Trial trial(seed);
    auto body = [&](Scope& scope) { return wait_and_cancel(scope, trial, 1 + seed % 5); };
    auto root = [&](Shard&) { return with_scope(body); };
    ASSERT_TRUE(trial.world.run(root).ok());
    EXPECT_EQ(trial.runs, 1) << seed;
    EXPECT_EQ(trial.alive.use_count(), 1) << seed;
    if (trial.result.ok()) {
      EXPECT_EQ(trial.result.value(), 42);
      ++finished;
    } else {
      EXPECT_EQ(trial.result.error().kind, ErrorKind::kCancelled);
      ++cancelled;
    }
  }
  EXPECT_GT(cancelled, 0);
  EXPECT_GT(finished, 0);
}

}  // namespace
}  // namespace ringdisk
