// SPDX-License-Identifier: Apache-2.0
// The stack does not grow with the number of awaits, in any build: a million awaits that complete
// at once, of every kind, run at the same depth. (Symmetric transfer fails this in sanitizer builds
// of g++ 12 after 20,000.) And an end that travels through nested combinators is a loop.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "async/event.h"
#include "async/executor_test.h"
#include "async/range_lock.h"
#include "async/scope.h"
#include "async/semaphore.h"
#include "async/yield.h"

namespace ringdisk {
namespace {

constexpr int kAwaits = 1'000'000;
constexpr uintptr_t kDepthMax = 64 * 1024;

// How far apart the stack pointers were at all calls of note().
class StackDepth {
 public:
  __attribute__((noinline)) void note() {
    // why: the address itself is what is measured; of the frame, since locals may live elsewhere
    auto here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    lowest_ = std::min(lowest_, here);
    highest_ = std::max(highest_, here);
    ++notes_;
  }
  uintptr_t depth() const { return highest_ - lowest_; }
  int notes() const { return notes_; }

 private:
  uintptr_t lowest_ = ~uintptr_t{0};
  uintptr_t highest_ = 0;
  int notes_ = 0;
};

template <class F>
void expect_flat(F make, int notes = kAwaits) {
  TestExecutor executor;
  StackDepth depth;
  auto make_it = [&] { return make(depth); };
  ASSERT_TRUE(executor.run(make_it).ok());
  EXPECT_EQ(depth.notes(), notes);
  EXPECT_LT(depth.depth(), kDepthMax);
  EXPECT_EQ(executor.frames().live(), 0u);
  EXPECT_LT(executor.frames().system_allocations(), 20u);
}

Task<int> note_and_give(StackDepth& depth) {
  depth.note();
  co_return 1;
}
Task<int> note_and_refuse(StackDepth& depth) {
  depth.note();
  co_return Error::from_errno(EIO, "test");
}
Task<void> note_void(StackDepth& depth) {
  depth.note();
  co_return;
}

Task<void> await_tasks(StackDepth& depth) {
  int64_t sum = 0;
  for (int i = 0; i < kAwaits; ++i) sum += i;  // keeps a local alive over the loop below
  for (int i = 0; i < kAwaits; ++i) {
    int one = co_await note_and_give(depth);
    sum -= int64_t{one} * i;
  }
  EXPECT_EQ(sum, 0);
}
TEST(StackTest, TasksThatCompleteAtOnce) { expect_flat(&await_tasks); }

Task<int> through_three(StackDepth& depth, int level) {
  if (level == 0) {
    int last = co_await note_and_give(depth);
    co_return last;
  }
  int below = co_await through_three(depth, level - 1);
  co_return below;
}
Task<void> await_nested_tasks(StackDepth& depth) {
  for (int i = 0; i < kAwaits; ++i) co_await through_three(depth, 3);
}
TEST(StackTest, NestedTasksThatCompleteAtOnce) { expect_flat(&await_nested_tasks); }

Task<void> await_errors(StackDepth& depth) {
  int failures = 0;
  for (int i = 0; i < kAwaits; ++i) {
    Result<int> result = co_await note_and_refuse(depth).result();
    failures += !result.ok();
  }
  EXPECT_EQ(failures, kAwaits);
}
TEST(StackTest, TasksThatFailAtOnce) { expect_flat(&await_errors); }

Task<void> await_combinators(StackDepth& depth) {
  auto one = [&depth](size_t) { return note_void(depth); };
  for (int i = 0; i < kAwaits / 10; ++i) co_await when_all(10, one);
}
TEST(StackTest, PiecesThatCompleteAtOnce) { expect_flat(&await_combinators); }

Task<void> spawn_some(Scope& scope, StackDepth& depth) {
  for (int i = 0; i < 10; ++i) scope.spawn(note_void(depth));
  co_return;
}
Task<void> await_scopes(StackDepth& depth) {
  for (int i = 0; i < kAwaits / 10; ++i) co_await with_scope(&spawn_some, depth);
}
TEST(StackTest, ScopesWhoseChildrenCompleteAtOnce) { expect_flat(&await_scopes); }

Task<void> await_primitives(StackDepth& depth) {
  Event event;
  Semaphore semaphore(3);
  Mutex mutex;
  RangeLock ranges;
  event.set();
  for (int i = 0; i < kAwaits; ++i) {
    co_await event.wait();
    SemaphoreUnits units = co_await semaphore.acquire(2);
    MutexLock lock = co_await mutex.lock();
    RangeGuard guard(ranges, 10, 20);
    co_await guard.acquired();
    depth.note();
  }
}
TEST(StackTest, PrimitivesThatAreFree) { expect_flat(&await_primitives); }

Task<void> yield_often(StackDepth& depth) {
  for (int i = 0; i < kAwaits; ++i) {
    co_await Yield();
    depth.note();
  }
}
TEST(StackTest, YieldsThatSuspendEachTime) { expect_flat(&yield_often); }

// Two coroutines that wake each other all the time.
Task<void> pass_on(Event& mine, Event& other, StackDepth& depth, int times) {
  for (int i = 0; i < times; ++i) {
    co_await mine.wait();
    mine.reset();
    depth.note();
    other.set();
  }
}
Task<void> ping_pong(StackDepth& depth) {
  Event left, right;
  left.set();
  auto one = [&](size_t i) {
    return i == 0 ? pass_on(left, right, depth, kAwaits / 2)
                  : pass_on(right, left, depth, kAwaits / 2);
  };
  co_await when_all(2, one);
}
TEST(StackTest, CoroutinesThatWakeEachOther) { expect_flat(&ping_pong); }

// Notes the depth at which a frame dies.
class DepthAtDeath {
 public:
  explicit DepthAtDeath(StackDepth& depth) : depth_(depth) {}
  ~DepthAtDeath() { depth_.note(); }

 private:
  StackDepth& depth_;
};

constexpr int kLevels = 1000;

Task<void> fail_below(Event& event, int level, StackDepth& depth) {
  DepthAtDeath noted(depth);
  if (level == 0) {
    co_await event.wait();
    co_await fail(Error::from_errno(EIO, "test"));
  }
  auto one = [&event, level, &depth](size_t) { return fail_below(event, level - 1, depth); };
  co_await when_all(1, one);
}
Task<void> spawn_below(Scope& scope, Event& event, const int& level, StackDepth& depth);
Task<void> fail_below_scopes(Event& event, int level, StackDepth& depth) {
  DepthAtDeath noted(depth);
  if (level == 0) {
    co_await event.wait();
    co_await fail(Error::from_errno(EIO, "test"));
  }
  const int next = level - 1;
  co_await with_scope(&spawn_below, event, next, depth);
}
Task<void> spawn_below(Scope& scope, Event& event, const int& level, StackDepth& depth) {
  scope.spawn(fail_below_scopes(event, level, depth));
  co_return;
}

template <class F>
void expect_flat_failure(F make) {
  TestExecutor executor;
  StackDepth depth;
  Event event;
  {
    RootTask<void> root(make(event, kLevels, depth));
    event.set();
    executor.run_ready();
    ASSERT_TRUE(root.is_settled());
    EXPECT_EQ(root.take_result().error().errno_value, EIO);
  }
  EXPECT_EQ(depth.notes(), kLevels + 1);
  EXPECT_LT(depth.depth(), kDepthMax);
}

TEST(StackTest, AFailureLeavesAThousandNestedCombinators) { expect_flat_failure(&fail_below); }
TEST(StackTest, AFailureLeavesAThousandNestedScopes) { expect_flat_failure(&fail_below_scopes); }

}  // namespace
}  // namespace ringdisk
