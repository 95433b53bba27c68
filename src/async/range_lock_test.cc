// SPDX-License-Identifier: Apache-2.0
// RangeLock: overlapping ranges one after the other in order of arrival, disjoint ones beside each
// other.
#include "async/range_lock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/executor_test.h"
#include "async/scope.h"
#include "async/yield.h"
#include "base/random.h"
#include "sim/seeds.h"

namespace ringdisk {
namespace {

Task<void> hold(RangeLock& lock, uint64_t begin, uint64_t end, Event& let_go, std::string& log,
                char name) {
  RangeGuard guard(lock, begin, end);
  co_await guard.acquired();
  log += name;
  co_await let_go.wait();
}

TEST(RangeLockTest, DisjointRangesPassWhereOverlappingOnesWait) {
  TestExecutor executor;
  std::string log;
  RangeLock lock;
  Event first, rest;
  {
    RootTask<void> a(hold(lock, 0, 10, first, log, 'a'));
    RootTask<void> b(hold(lock, 5, 15, rest, log, 'b'));
    RootTask<void> c(hold(lock, 10, 20, rest, log, 'c'));
    RootTask<void> d(hold(lock, 20, 21, rest, log, 'd'));
    executor.run_ready();
    // c touches nothing that is held, but b came before it and wants what c wants.
    EXPECT_EQ(log, "ad");
    first.set();
    executor.run_ready();
    EXPECT_EQ(log, "adb");
    rest.set();
    executor.run_ready();
    EXPECT_EQ(log, "adbc");
  }
  EXPECT_TRUE(lock.is_idle());
}

TEST(RangeLockTest, AGuardThatIsGivenUpLetsTheNextOnePass) {
  TestExecutor executor;
  std::string log;
  RangeLock lock;
  Event let_go;
  let_go.set();
  {
    auto guard = std::make_unique<RangeGuard>(lock, 0, 100);
    RootTask<void> waiting(hold(lock, 50, 60, let_go, log, 'w'));
    executor.run_ready();
    EXPECT_EQ(log, "");
    guard.reset();  // never acquired
    executor.run_ready();
    EXPECT_EQ(log, "w");
  }
  EXPECT_TRUE(lock.is_idle());
}

// --- many, against a simple model ----------------------------------------------------------------

struct Holding {
  uint64_t begin, end;
  size_t arrival;
};
struct Board {
  RangeLock lock;
  std::vector<Holding> waiting, held;
  size_t arrivals = 0;
  size_t held_max = 0;
};

bool overlap(const Holding& a, const Holding& b) { return a.begin < b.end && b.begin < a.end; }

void remove(std::vector<Holding>& from, size_t arrival) {
  auto is_it = [arrival](const Holding& one) { return one.arrival == arrival; };
  from.erase(std::find_if(from.begin(), from.end(), is_it));
}

Task<void> hold_random(Board& board, uint64_t seed) {
  Random random(seed);
  for (int i = 0; i < 20; ++i) {
    const uint64_t begin = random.below(50);
    const Holding mine{begin, begin + 1 + random.below(10), board.arrivals++};
    RangeGuard guard(board.lock, mine.begin, mine.end);
    board.waiting.push_back(mine);
    co_await guard.acquired();
    remove(board.waiting, mine.arrival);
    for (const Holding& other : board.held) EXPECT_FALSE(overlap(mine, other));
    for (const Holding& other : board.waiting) {
      EXPECT_FALSE(overlap(mine, other) && other.arrival < mine.arrival) << "overtaken";
    }
    board.held.push_back(mine);
    board.held_max = std::max(board.held_max, board.held.size());
    for (uint64_t n = random.below(4); n != 0; --n) co_await Yield();
    remove(board.held, mine.arrival);
  }
}
Task<void> hold_by_many(Board& board, uint64_t seed) {
  auto one = [&board, seed](size_t index) {
    return hold_random(board, sim::mix_seed(seed, index));
  };
  co_await when_all(20, one);
}

TEST(RangeLockTest, NoTwoOverlapAndNobodyOvertakes) {
  sim::for_each_seed(100, [](uint64_t seed) {
    TestExecutor executor(seed);
    Board board;
    auto make = [&board, seed] { return hold_by_many(board, seed); };
    ASSERT_TRUE(executor.run(make).ok());
    EXPECT_TRUE(board.lock.is_idle());
    EXPECT_EQ(board.arrivals, 400u);
    EXPECT_GT(board.held_max, 2u) << "disjoint ranges are held together";
  });
}

TEST(RangeLockDeathTest, AnEmptyRangeIsABug) {
  EXPECT_DEATH(
      {
        RangeLock lock;
        RangeGuard guard(lock, 5, 5);
      },
      "CHECK failed: begin < end");
}

}  // namespace
}  // namespace ringdisk
