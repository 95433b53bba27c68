// SPDX-License-Identifier: Apache-2.0
// The ready queue and the memory of frames.
#include "async/executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "async/executor_test.h"
#include "async/frame_pool.h"
#include "async/scope.h"
#include "async/yield.h"

#if defined(__SANITIZE_ADDRESS__)
#define RINGDISK_TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RINGDISK_TEST_ASAN 1
#endif
#endif
#ifdef RINGDISK_TEST_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace ringdisk {
namespace {

Task<void> yield_and_log(std::string& log, char name, int times) {
  for (int i = 0; i < times; ++i) {
    co_await Yield();
    log += name;
  }
}
Task<void> three_of_them(std::string& log, int times) {
  auto one = [&log, times](size_t index) {
    return yield_and_log(log, static_cast<char>('a' + index), times);
  };
  co_await when_all(3, one);
}

TEST(ExecutorTest, WhatIsReadyFirstRunsFirst) {
  TestExecutor executor;
  std::string log;
  auto make = [&log] { return three_of_them(log, 3); };
  ASSERT_TRUE(executor.run(make).ok());
  EXPECT_EQ(log, "abcabcabc");
}

TEST(ExecutorTest, RunsNoMoreThanItIsAskedTo) {
  TestExecutor test;
  Executor& executor = test.executor();
  std::string log;
  RootTask<void> root(three_of_them(log, 2));
  EXPECT_TRUE(executor.has_ready());
  EXPECT_EQ(executor.run_ready(2), 2u);
  EXPECT_EQ(log, "ab");
  EXPECT_EQ(executor.run_ready(2), 2u);
  EXPECT_EQ(log, "abca");
  EXPECT_EQ(executor.run_ready(100), 2u);
  EXPECT_EQ(log, "abcabc");
  EXPECT_EQ(executor.run_ready(100), 0u);
  EXPECT_FALSE(executor.has_ready());
}

Task<void> yield_once(size_t& done) {
  co_await Yield();
  ++done;
}
Task<void> many_of_them(size_t count, size_t& done) {
  auto one = [&done](size_t) { return yield_once(done); };
  co_await when_all(count, one);
}

TEST(ExecutorTest, HoldsAnyNumberOfReadyCoroutines) {
  TestExecutor executor;
  for (size_t count : {255, 256, 257, 5000}) {
    size_t done = 0;
    auto make = [&done, count] { return many_of_them(count, done); };
    ASSERT_TRUE(executor.run(make).ok());
    EXPECT_EQ(done, count);
  }
}

std::string order_with(uint64_t seed) {
  TestExecutor executor(seed);
  std::string log;
  auto make = [&log] { return three_of_them(log, 4); };
  EXPECT_TRUE(executor.run(make).ok());
  return log;
}

TEST(ExecutorTest, ASeedGivesItsOrderAgainAndOthersGiveOthers) {
  std::vector<std::string> orders;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    EXPECT_EQ(order_with(seed), order_with(seed)) << "seed " << seed;
    orders.push_back(order_with(seed));
  }
  std::sort(orders.begin(), orders.end());
  orders.erase(std::unique(orders.begin(), orders.end()), orders.end());
  EXPECT_GT(orders.size(), 30u);
}

TEST(ExecutorTest, EnteredExecutorsNest) {
  EXPECT_FALSE(Executor::has_current());
  Executor outer, inner;
  {
    Executor::Entered entered(outer);
    EXPECT_EQ(&Executor::current(), &outer);
    {
      Executor::Entered again(inner);
      EXPECT_EQ(&Executor::current(), &inner);
    }
    EXPECT_EQ(&Executor::current(), &outer);
  }
  EXPECT_FALSE(Executor::has_current());
}

// --- FramePool -----------------------------------------------------------------------------------

TEST(FramePoolTest, UsesFreedFramesOfItsSizeAgain) {
  FramePool pool;
  void* a = pool.allocate(100);
  void* b = pool.allocate(129);
  EXPECT_EQ(pool.live(), 2u);
  pool.free(a, 100);
  EXPECT_EQ(pool.allocate(128), a) << "100 and 128 bytes are of one class";
  void* c = pool.allocate(128);
  EXPECT_NE(c, a);
  EXPECT_EQ(pool.system_allocations(), 3u);
  EXPECT_EQ(pool.allocated_total(), 4u);
  EXPECT_EQ(pool.live_max(), 3u);
  pool.free(a, 128);
  pool.free(b, 129);
  pool.restart_live_max();
  EXPECT_EQ(pool.live(), 1u);
  EXPECT_EQ(pool.live_max(), 1u);
  pool.free(c, 128);
}

TEST(FramePoolTest, FramesOfEverySizeCanBeWrittenToTheirLastByte) {
  FramePool pool;
  for (size_t bytes : {1, 63, 64, 65, 1000, 4095, 4096, 4097, 100'000}) {
    auto* frame = static_cast<unsigned char*>(pool.allocate(bytes));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(frame) % 16, 0u);  // why: alignment is what is tested
    memset(frame, 0xab, bytes);
    pool.free(frame, bytes);
  }
  EXPECT_EQ(pool.live(), 0u);
}

#ifdef RINGDISK_TEST_ASAN
TEST(FramePoolTest, FreeFramesArePoisoned) {
  FramePool pool;
  auto* frame = static_cast<unsigned char*>(pool.allocate(200));
  EXPECT_FALSE(__asan_address_is_poisoned(frame + 199));
  pool.free(frame, 200);
  EXPECT_TRUE(__asan_address_is_poisoned(frame));
  EXPECT_TRUE(__asan_address_is_poisoned(frame + 199));
  EXPECT_EQ(pool.allocate(200), frame);
  EXPECT_FALSE(__asan_address_is_poisoned(frame));
  pool.free(frame, 200);
}
#endif

TEST(FramePoolDeathTest, APoolCannotGoBeforeItsFrames) {
  EXPECT_DEATH(
      {
        FramePool pool;
        static_cast<void>(pool.allocate(64));
      },
      "CHECK failed: live_ == uint64_t");
}

}  // namespace
}  // namespace ringdisk
