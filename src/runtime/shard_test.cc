// SPDX-License-Identifier: Apache-2.0
// Shards of real threads: calls between them, time, idleness.
#include "runtime/shard.h"

#include <sys/resource.h>

#include <memory>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/yield.h"
#include "runtime/real_loops_test.h"

namespace ringdisk {
namespace {

using std::chrono::milliseconds;

class ShardTest : public RealLoopsTest {};

// --- calls ---------------------------------------------------------------------------------------

TEST_P(ShardTest, ACallRunsThereAndComesBackHere) {
  auto body = [&](Shard& home) -> Task<void> {
    for (size_t index = 0; index < shard_count(); ++index) {
      Shard& there = shard(index);
      auto plain = [&there]() -> Result<std::string> {
        EXPECT_TRUE(there.is_current());
        return std::string(100, 'x');
      };
      std::string text = co_await there.call(plain);
      EXPECT_EQ(text.size(), 100u);
      EXPECT_TRUE(home.is_current());
      auto task = [&there]() -> Task<std::unique_ptr<uint32_t>> {
        co_await Yield();
        EXPECT_TRUE(there.is_current());
        co_return std::make_unique<uint32_t>(Shard::current().index());
      };
      std::unique_ptr<uint32_t> where = co_await there.call(task);
      EXPECT_EQ(*where, index);
      EXPECT_TRUE(home.is_current());
    }
  };
  ASSERT_TRUE(run(3, body).ok());
}

TEST_P(ShardTest, ErrorsComeBackWhole) {
  auto body = [&](Shard&) -> Task<void> {
    for (size_t index = 0; index < shard_count(); ++index) {
      auto plain = []() -> Result<void> { return Error::from_errno(ENOSPC, "there", 9); };
      Result<void> first = co_await shard(index).call(plain).result();
      EXPECT_FALSE(first.ok());
      EXPECT_EQ(first.error().errno_value, ENOSPC);
      EXPECT_EQ(first.error().offset, 9u);
      auto task = []() -> Task<int> {
        co_await Yield();
        co_return Error::from_errno(EPERM, "there");
      };
      Result<int> second = co_await shard(index).call(task).result();
      EXPECT_EQ(second.error().errno_value, EPERM);
    }
    auto last = []() -> Result<void> { return Error::from_errno(EXDEV, "last"); };
    co_await shard(1).call(last);
    ADD_FAILURE() << "an error ends the caller";
  };
  EXPECT_EQ(run(2, body).error().errno_value, EXDEV);
}

TEST_P(ShardTest, CallsNestAndGoRoundInCircles) {
  struct Circle {
    static Task<uint32_t> go_round(std::span<Shard* const> shards, uint32_t left) {
      if (left == 0) co_return 0u;
      Shard& next = *shards[left % shards.size()];
      auto further = [shards, left] { return go_round(shards, left - 1); };
      uint32_t below = co_await next.call(further);
      co_return below + 1;
    }
  };
  auto body = [&](Shard&) -> Task<void> {
    std::vector<Shard*> shards;
    for (size_t index = 0; index < shard_count(); ++index) shards.push_back(&shard(index));
    uint32_t rounds = co_await Circle::go_round(shards, 200);
    EXPECT_EQ(rounds, 200u);
  };
  ASSERT_TRUE(run(3, body).ok());
}

struct Tally {
  uint64_t calls = 0;  // its shard only
};
Task<void> call_often(Shard& there, Tally& tally, int times) {
  auto count = [&tally]() -> Result<uint64_t> { return ++tally.calls; };
  for (int i = 0; i < times; ++i) {
    uint64_t before = co_await there.call(count);
    EXPECT_GT(before, 0u);
  }
}

// Every shard calls every shard, many at a time.
TEST_P(ShardTest, ManyConcurrentCallsInAllDirections) {
  constexpr uint32_t kShards = 4, kCallers = 20, kTimes = 100;
  std::vector<Tally> tallies(kShards);
  auto body = [&](Shard&) -> Task<void> {
    auto on_shard = [&](size_t from) -> Task<void> {
      auto work = [&]() -> Task<void> {
        auto caller = [&](size_t i) {
          return call_often(shard(i % kShards), tallies[i % kShards], kTimes);
        };
        co_await when_all(kShards * kCallers, caller);
      };
      co_await shard(from).call(work);
    };
    co_await when_all(kShards, on_shard);
  };
  ASSERT_TRUE(run(kShards, body).ok());
  for (const Tally& tally : tallies) EXPECT_EQ(tally.calls, kShards * kCallers * kTimes);
}

class Numbered final : public Message {
 public:
  Numbered(std::vector<int>& order, int number, Event& all)
      : order_(order), number_(number), all_(all) {}
  void deliver() override {
    order_.push_back(number_);
    if (number_ == 999) all_.set();
  }

 private:
  std::vector<int>& order_;
  int number_;
  Event& all_;
};

TEST_P(ShardTest, MessagesOfOneSenderArriveInTheirOrder) {
  std::vector<int> order;
  auto body = [&](Shard& home) -> Task<void> {
    Event all;
    std::vector<std::unique_ptr<Numbered>> messages;
    for (int i = 0; i < 1000; ++i) messages.push_back(std::make_unique<Numbered>(order, i, all));
    auto send = [&]() -> Result<void> {
      for (auto& message : messages) home.post(*message);
      return {};
    };
    co_await shard(1).call(send);
    co_await all.wait();
  };
  ASSERT_TRUE(run(2, body).ok());
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

// --- time ----------------------------------------------------------------------------------------

Task<void> sleep_and_note(Shard& shard, int length_ms, std::vector<int>& order) {
  Instant start = shard.clock().now();
  Result<void> slept = co_await shard.sleep(milliseconds(length_ms));
  EXPECT_TRUE(slept.ok());
  EXPECT_GE(shard.clock().now() - start, milliseconds(length_ms));
  order.push_back(length_ms);
}

TEST_P(ShardTest, SleepersWakeInTheOrderOfTheirTimesAndNotBefore) {
  std::vector<int> order;
  auto body = [&](Shard& home) -> Task<void> {
    const int lengths[] = {40, 5, 20, 0, 30, 10};
    auto one = [&](size_t i) { return sleep_and_note(home, lengths[i], order); };
    Instant start = system_clock().now();
    co_await when_all(std::size(lengths), one);
    EXPECT_LT(system_clock().now() - start, std::chrono::seconds(5));
  };
  ASSERT_TRUE(run(1, body).ok());
  EXPECT_EQ(order, (std::vector<int>{0, 5, 10, 20, 30, 40}));
}

TEST_P(ShardTest, ASleepCanBeCancelled) {
  auto body = [&](Shard& home) -> Task<void> {
    CancelSource source;
    auto sleep = [&](size_t i) -> Task<void> {
      if (i == 1) {
        co_await Yield();
        source.cancel();
        co_return;
      }
      Result<void> slept = co_await home.sleep(std::chrono::hours(1), source.token());
      EXPECT_FALSE(slept.ok());
      EXPECT_EQ(slept.error().kind, ErrorKind::kCancelled);
    };
    co_await when_all(2, sleep);
    EXPECT_FALSE(home.next_timer().has_value());
  };
  ASSERT_TRUE(run(1, body).ok());
}

Duration cpu_time_used() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto of = [](const timeval& time) {
    return std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

TEST_P(ShardTest, IdleShardsUseNoCpu) {
  auto body = [&](Shard& home) -> Task<void> {
    // Busy first, so that whatever adapts to a lively exchange has adapted.
    Tally tally;
    for (size_t index = 0; index < shard_count(); ++index) {
      co_await call_often(shard(index), tally, 200);
    }
    Duration before = cpu_time_used();
    Result<void> slept = co_await home.sleep(milliseconds(200));
    EXPECT_TRUE(slept.ok());
    EXPECT_LT(cpu_time_used() - before, milliseconds(10)) << "5 % of the time";
  };
  ASSERT_TRUE(run(4, body).ok());
}

RINGDISK_ON_BOTH_LOOPS(ShardTest);

}  // namespace
}  // namespace ringdisk
