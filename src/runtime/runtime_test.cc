// SPDX-License-Identifier: Apache-2.0
// Starting and ending the shards of a process, and the threads that may block.
#include "runtime/runtime.h"

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "async/yield.h"
#include "runtime/epoll_loop.h"
#include "runtime/real_loops_test.h"

namespace ringdisk {
namespace {

using std::chrono::milliseconds;

class RuntimeTest : public RealLoopsTest {
 protected:
  RuntimeOptions options(uint32_t shards) const {
    RuntimeOptions options;
    options.shards = shards;
    options.loop = GetParam();
    return options;
  }
};

TEST_P(RuntimeTest, StartsAndEndsWithAnyNumberOfShards) {
  Log log(-1, LogLevel::kWarning, "");
  for (uint32_t shards : {1, 2, 5}) {
    Runtime runtime(options(shards), system_clock(), log);
    ASSERT_TRUE(runtime.start().ok());
    ASSERT_EQ(runtime.shards().size(), shards);
    for (uint32_t index = 0; index < shards; ++index) {
      EXPECT_EQ(runtime.shards()[index]->index(), index);
      EXPECT_EQ(runtime.shards()[index]->loop().name(),
                GetParam() == LoopKind::kUring ? "io_uring" : "epoll");
    }
  }
}

TEST_P(RuntimeTest, ANumberOfShardsIsChosenByTheCores) {
  Log log(-1, LogLevel::kWarning, "");
  Runtime runtime(options(0), system_clock(), log);
  ASSERT_TRUE(runtime.start().ok());
  EXPECT_EQ(runtime.shards().size(), usable_cores());
  EXPECT_GE(usable_cores(), 1u);
}

TEST_P(RuntimeTest, ARuntimeThatNeverStartedEnds) {
  Log log(-1, LogLevel::kWarning, "");
  Runtime runtime(options(3), system_clock(), log);
}

Task<int> answer_after_turns(Shard& shard, int value) {
  for (int i = 0; i < value; ++i) co_await Yield();
  EXPECT_TRUE(shard.is_current());
  co_return value;
}

TEST_P(RuntimeTest, RunsOneRootAfterTheOther) {
  Log log(-1, LogLevel::kWarning, "");
  Runtime runtime(options(2), system_clock(), log);
  ASSERT_TRUE(runtime.start().ok());
  for (int value : {0, 1, 500}) {
    auto root = [value](Shard& shard) { return answer_after_turns(shard, value); };
    EXPECT_EQ(runtime.run(root).value(), value);
  }
  auto refuse = [](Shard&) -> Task<int> { co_return Error::from_errno(EIO, "root"); };
  EXPECT_EQ(runtime.run(refuse).error().errno_value, EIO);
}

std::string read_all(int fd) {
  char text[200];
  ssize_t length = read(fd, text, sizeof text);
  return std::string(text, length < 0 ? 0 : static_cast<size_t>(length));
}

TEST_P(RuntimeTest, SaysHowManyShardsRunOnWhat) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  FileDescriptor from(ends[0]), to(ends[1]);
  Log log(to.get(), LogLevel::kInfo, "");
  Runtime runtime(options(2), system_clock(), log);
  ASSERT_TRUE(runtime.start().ok());
  EXPECT_EQ(read_all(from.get()),
            GetParam() == LoopKind::kUring ? "2 shards on io_uring\n" : "2 shards on epoll\n");
}

// --- what blocks ---------------------------------------------------------------------------------

TEST_P(RuntimeTest, BlockingWorkRunsOffTheShardAndComesBack) {
  auto body = [&](Shard& home) -> Task<void> {
    auto work = [&](Blocking) -> Result<std::string> {
      EXPECT_FALSE(Executor::has_current());
      return std::string("done");
    };
    std::string text = co_await run_blocking(blocking(), work);
    EXPECT_EQ(text, "done");
    EXPECT_TRUE(home.is_current());
    auto refuse = [&](Blocking) -> Result<void> { return Error::from_errno(ENOTDIR, "open"); };
    co_await run_blocking(blocking(), refuse);
  };
  EXPECT_EQ(run(1, body).error().errno_value, ENOTDIR);
}

// Each job waits until all are running: as many threads as jobs.
TEST_P(RuntimeTest, JobsThatWaitForOneAnotherAllGetAThread) {
  std::latch all_running(limits::kBlockingThreadsMax);
  auto body = [&](Shard&) -> Task<void> {
    auto job = [&](size_t) -> Task<void> {
      auto work = [&](Blocking) -> Result<void> {
        all_running.arrive_and_wait();
        return {};
      };
      co_await run_blocking(blocking(), work);
    };
    co_await when_all(limits::kBlockingThreadsMax, job);
  };
  ASSERT_TRUE(run(1, body).ok());
}

TEST_P(RuntimeTest, ManyJobsOfManyShards) {
  std::atomic<uint64_t> done = 0;
  auto body = [&](Shard&) -> Task<void> {
    auto on_shard = [&](size_t index) -> Task<void> {
      auto all = [&]() -> Task<void> {
        auto job = [&](size_t) -> Task<void> {
          auto work = [&](Blocking) -> Result<void> {
            done.fetch_add(1, std::memory_order_relaxed);
            return {};
          };
          co_await run_blocking(blocking(), work);
        };
        co_await when_all(300, job);
      };
      co_await shard(index).call(all);
    };
    co_await when_all(3, on_shard);
  };
  ASSERT_TRUE(run(3, body).ok());
  EXPECT_EQ(done.load(), 900u);
}

// The last thing that happens before the end comes from another thread: nothing of the runtime may
// go before that thread is done with it. (The thread sanitizer sees it when the order is wrong.)
TEST_P(RuntimeTest, ItsEndWaitsForThreadsThatHaveJustDeliveredSomething) {
  for (int i = 0; i < 50; ++i) {
    auto body = [&](Shard&) -> Task<void> {
      auto nothing = [](Blocking) -> Result<void> { return {}; };
      auto job = [&]() -> Task<void> { co_await run_blocking(blocking(), nothing); };
      auto each = [&](size_t index) -> Task<void> { co_await shard(index).call(job); };
      co_await when_all(3, each);
    };
    ASSERT_TRUE(run(3, body).ok());
  }
}

RINGDISK_ON_BOTH_LOOPS(RuntimeTest);

// --- WorkerThreads -------------------------------------------------------------------------------

class CountingWork final : public Work {
 public:
  CountingWork(std::atomic<int>& count, std::latch* wait) : count_(count), wait_(wait) {}
  void run(Blocking) override {
    if (wait_) wait_->wait();
    ++count_;
  }

 private:
  std::atomic<int>& count_;
  std::latch* wait_;
};

TEST(WorkerThreadsTest, TheEndWaitsForWhatWasSubmitted) {
  std::atomic<int> count = 0;
  std::vector<std::unique_ptr<CountingWork>> work;
  for (int i = 0; i < 200; ++i) work.push_back(std::make_unique<CountingWork>(count, nullptr));
  {
    WorkerThreads threads(3);
    for (auto& one : work) threads.submit(*one);
  }
  EXPECT_EQ(count.load(), 200);
}

TEST(WorkerThreadsTest, WorkThatNobodyHasBegunCanBeWithdrawn) {
  std::atomic<int> count = 0;
  std::latch go(1);
  CountingWork busy(count, &go), waiting(count, nullptr), last(count, nullptr);
  WorkerThreads threads(1);
  threads.submit(busy);
  threads.submit(waiting);
  threads.submit(last);
  EXPECT_TRUE(threads.try_withdraw(waiting));
  EXPECT_FALSE(threads.try_withdraw(waiting));
  go.count_down();
  threads.join();
  threads.join();
  EXPECT_EQ(count.load(), 2);
  EXPECT_FALSE(threads.try_withdraw(last));
}

// --- BufferPool ----------------------------------------------------------------------------------

TEST(BufferPoolTest, GivesAlignedMemoryOfAtLeastTheSizeAndUsesItAgain) {
  BufferPool pool(nullptr);
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{4096}, size_t{4097}, size_t{100'000},
                       size_t{2} << 20, (size_t{2} << 20) + 1, size_t{5} << 20}) {
    Buffer buffer = pool.take(bytes);
    EXPECT_GE(buffer.bytes().size(), bytes);
    // why: alignment of the address is what is tested
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.bytes().data()) % kBufferAlignment, 0u);
    std::fill(buffer.bytes().begin(), buffer.bytes().end(), std::byte{0xaa});
    EXPECT_EQ(buffer.fixed_slot(), -1);
  }
  EXPECT_EQ(pool.taken(), 0u);
  const uint64_t allocations = pool.system_allocations();
  for (int i = 0; i < 100; ++i) {
    Buffer first = pool.take(4096), second = pool.take(100'000);
    EXPECT_EQ(pool.taken(), 2u);
  }
  EXPECT_EQ(pool.system_allocations(), allocations);
}

TEST(BufferPoolTest, WhatTheSystemDoesNotHaveIsAnError) {
  BufferPool pool(nullptr);
  Result<Buffer> taken = pool.try_take(size_t{1} << 60);
  ASSERT_FALSE(taken.ok());
  EXPECT_EQ(taken.error().errno_value, ENOMEM);
  EXPECT_EQ(pool.taken(), 0u);
  EXPECT_EQ(pool.system_allocations(), 0u);
}

TEST(BufferPoolTest, BuffersOfASlabDoNotOverlapAndTheLatestIsGivenFirst) {
  BufferPool pool(nullptr);
  std::vector<Buffer> buffers;
  for (int i = 0; i < 600; ++i) {
    buffers.push_back(pool.take(4096));
    std::fill(buffers.back().bytes().begin(), buffers.back().bytes().end(),
              static_cast<std::byte>(i % 251));
  }
  for (int i = 0; i < 600; ++i) {
    Bytes bytes = buffers[static_cast<size_t>(i)].bytes();
    EXPECT_EQ(bytes.size(), 4096u);
    EXPECT_EQ(bytes.front(), static_cast<std::byte>(i % 251));
    EXPECT_EQ(bytes.back(), static_cast<std::byte>(i % 251));
  }
  const std::byte* hot = buffers[77].bytes().data();
  buffers[77].release();
  EXPECT_TRUE(buffers[77].empty());
  Buffer again = pool.take(1);
  EXPECT_EQ(again.bytes().data(), hot);
  Buffer moved = std::move(again);
  EXPECT_EQ(pool.taken(), 600u);
}

}  // namespace
}  // namespace ringdisk
