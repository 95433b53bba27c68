// SPDX-License-Identifier: Apache-2.0
// Sleepers in virtual time: each wakes at its own moment, whoever is cancelled around it.
#include "runtime/timer.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "async/scope.h"
#include "base/random.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using sim::SimWorld;

struct Night {
  explicit Night(size_t sleepers) {
    for (size_t i = 0; i < sleepers; ++i) alarms.push_back(std::make_unique<CancelSource>());
  }
  std::vector<std::unique_ptr<CancelSource>> alarms;  // of each sleeper
  size_t slept = 0, cancelled = 0;
};

Task<void> sleep_often(Shard& shard, Night& night, size_t self, uint64_t seed) {
  Random random(seed);
  for (int i = 0; i < 20; ++i) {
    const Duration length(static_cast<int64_t>(random.below(1000)));
    const Instant until = shard.clock().now() + length;
    Result<void> slept = co_await shard.sleep(length, night.alarms[self]->token());
    if (!slept.ok()) {
      EXPECT_LE(shard.clock().now(), until);
      ++night.cancelled;
      co_return;  // its source stays cancelled
    }
    EXPECT_EQ(shard.clock().now(), until) << "virtual time jumps to timers and nowhere else";
    ++night.slept;
    if (random.chance(3)) night.alarms[random.below(night.alarms.size())]->cancel();
  }
}

TEST(TimerTest, ManySleepersWakeInTimeWhoeverIsCancelled) {
  sim::for_each_seed(100, [](uint64_t seed) {
    SimWorld world(seed);
    Night night(50);
    auto body = [&](Shard& shard) -> Task<void> {
      auto one = [&](size_t i) { return sleep_often(shard, night, i, sim::mix_seed(seed, i)); };
      co_await when_all(night.alarms.size(), one);
    };
    ASSERT_TRUE(world.run(body).ok());
    EXPECT_GT(night.slept, 100u);
    EXPECT_GT(night.cancelled, 0u);
    EXPECT_FALSE(world.shard(0).next_timer().has_value());
  });
}

TEST(TimerTest, ATimeThatHasPassedWakesInTheNextTurn) {
  SimWorld world;
  auto body = [&](Shard& shard) -> Task<void> {
    Result<void> slept = co_await shard.sleep(Duration(-5));
    EXPECT_TRUE(slept.ok());
  };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_EQ(world.clock().now(), Instant{});
}

}  // namespace
}  // namespace ringdisk
