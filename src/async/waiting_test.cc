// SPDX-License-Identifier: Apache-2.0
// Event, Semaphore, Mutex, Gate and cancellation: who waits goes on once, in order, and nobody is
// forgotten.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/executor_test.h"
#include "async/gate.h"
#include "async/mutex.h"
#include "async/scope.h"
#include "async/semaphore.h"
#include "async/yield.h"
#include "base/random.h"
#include "sim/seeds.h"

namespace ringdisk {
namespace {

// --- Event ---------------------------------------------------------------------------------------

Task<void> wait_and_log(Event& event, std::string& log, char name) {
  co_await event.wait();
  log += name;
}
Task<void> wait_or_cancel_and_log(Event& event, CancelToken token, std::string& log) {
  Result<void> woken = co_await event.wait_or_cancel(token);
  log += woken.ok() ? '+' : '-';
  if (!woken.ok()) {
    EXPECT_EQ(woken.error().kind, ErrorKind::kCancelled);
  }
}

TEST(EventTest, LetsAllWhoWaitPassInOrderAndAllWhoComeLater) {
  TestExecutor executor;
  std::string log;
  Event event;
  RootTask<void> a(wait_and_log(event, log, 'a'));
  RootTask<void> b(wait_and_log(event, log, 'b'));
  RootTask<void> c(wait_and_log(event, log, 'c'));
  executor.run_ready();
  EXPECT_EQ(log, "");
  event.set();
  EXPECT_EQ(log, "");
  executor.run_ready();
  EXPECT_EQ(log, "abc");
  RootTask<void> late(wait_and_log(event, log, 'd'));
  EXPECT_EQ(log, "abcd");
  event.reset();
  RootTask<void> later(wait_and_log(event, log, 'e'));
  executor.run_ready();
  EXPECT_FALSE(later.is_settled());
  event.set();
  executor.run_ready();
  EXPECT_EQ(log, "abcde");
}

TEST(EventTest, WhoWasWokenPassesThoughTheEventIsResetBeforeItRuns) {
  TestExecutor executor;
  std::string log;
  Event event;
  RootTask<void> a(wait_and_log(event, log, 'a'));
  event.set();
  event.reset();
  executor.run_ready();
  EXPECT_EQ(log, "a");
}

TEST(EventTest, AWaitEndsWithTheEventOrTheCancellationWhicheverComesFirst) {
  TestExecutor executor;
  std::string log;
  Event event;
  CancelSource source;
  RootTask<void> cancelled(wait_or_cancel_and_log(event, source.token(), log));
  RootTask<void> without_source(wait_or_cancel_and_log(event, CancelToken(), log));
  source.cancel();
  executor.run_ready();
  EXPECT_EQ(log, "-");
  RootTask<void> too_late(wait_or_cancel_and_log(event, source.token(), log));
  EXPECT_EQ(log, "--") << "cancelled before it waited";
  event.set();
  executor.run_ready();
  EXPECT_EQ(log, "--+");
  RootTask<void> set_already(wait_or_cancel_and_log(event, source.token(), log));
  EXPECT_EQ(log, "--++") << "what has happened counts more than the cancellation";
}

TEST(EventTest, SettingAndCancellingTogetherWakesOnce) {
  TestExecutor executor;
  std::string log;
  Event event;
  CancelSource source;
  {
    RootTask<void> both(wait_or_cancel_and_log(event, source.token(), log));
    event.set();
    source.cancel();
    executor.run_ready();
    EXPECT_EQ(log, "+");
  }
  event.reset();
  CancelSource other;
  RootTask<void> reversed(wait_or_cancel_and_log(event, other.token(), log));
  other.cancel();
  event.set();
  executor.run_ready();
  EXPECT_EQ(log, "++");
}

// --- CancelSource --------------------------------------------------------------------------------

class LoggingListener final : public CancelListener {
 public:
  LoggingListener(std::string& log, char name) : log_(log), name_(name) {}
  void on_cancel() override { log_ += name_; }

 private:
  std::string& log_;
  char name_;
};

TEST(CancelTest, ListenersHearOnceInOrderUnlessTheyAreGone) {
  std::string log;
  CancelSource source;
  LoggingListener a(log, 'a'), c(log, 'c');
  source.token().listen(a);
  {
    LoggingListener gone(log, 'b');
    source.token().listen(gone);
  }
  source.token().listen(c);
  EXPECT_FALSE(source.token().is_cancelled());
  source.cancel();
  source.cancel();
  EXPECT_TRUE(source.token().is_cancelled());
  EXPECT_EQ(log, "ac");
}

TEST(CancelTest, ATokenOfNoSourceIsNeverCancelled) {
  std::string log;
  LoggingListener listener(log, 'a');
  CancelToken token;
  token.listen(listener);
  EXPECT_FALSE(token.is_cancelled());
  EXPECT_FALSE(listener.is_linked());
}

// --- Semaphore -----------------------------------------------------------------------------------

Task<void> take(Semaphore& semaphore, uint64_t units, Event& give_back, std::string& log,
                char name) {
  SemaphoreUnits taken = co_await semaphore.acquire(units);
  log += name;
  co_await give_back.wait();
}

TEST(SemaphoreTest, ALargeRequestIsNotOvertakenBySmallOnes) {
  TestExecutor executor;
  std::string log;
  Semaphore semaphore(10);
  Event first, rest;
  RootTask<void> a(take(semaphore, 6, first, log, 'a'));
  RootTask<void> large(take(semaphore, 10, rest, log, 'L'));
  RootTask<void> small(take(semaphore, 1, rest, log, 's'));
  executor.run_ready();
  EXPECT_EQ(log, "a") << "there is room for the small one, but it came later";
  EXPECT_EQ(semaphore.free(), 4u);
  first.set();
  executor.run_ready();
  EXPECT_EQ(log, "aL");
  EXPECT_EQ(semaphore.free(), 0u);
  rest.set();
  executor.run_ready();
  EXPECT_EQ(log, "aLs");
  EXPECT_EQ(semaphore.free(), 10u);
}

Task<void> move_units(Semaphore& semaphore) {
  SemaphoreUnits kept;
  {
    SemaphoreUnits taken = co_await semaphore.acquire(3);
    kept = std::move(taken);
  }
  EXPECT_EQ(semaphore.free(), 1u);
  SemaphoreUnits more = co_await semaphore.acquire(1);
  EXPECT_EQ(semaphore.free(), 0u);
  kept = std::move(more);
  EXPECT_EQ(semaphore.free(), 3u) << "what it held went back";
  kept.release();
  kept.release();
  EXPECT_EQ(semaphore.free(), 4u);
}

TEST(SemaphoreTest, UnitsMoveAndGoBackOnce) {
  TestExecutor executor;
  Semaphore semaphore(4);
  auto make = [&semaphore] { return move_units(semaphore); };
  ASSERT_TRUE(executor.run(make).ok());
}

struct Load {
  Semaphore semaphore{16};
  uint64_t in_use = 0, in_use_max = 0, done = 0;
};
Task<void> use_some(Load& load, uint64_t seed) {
  Random random(seed);
  for (int i = 0; i < 20; ++i) {
    const uint64_t units = 1 + random.below(16);
    SemaphoreUnits taken = co_await load.semaphore.acquire(units);
    load.in_use += units;
    load.in_use_max = std::max(load.in_use_max, load.in_use);
    if (random.chance(70)) co_await Yield();
    load.in_use -= units;
    ++load.done;
  }
}
Task<void> use_by_many(Load& load, uint64_t seed) {
  auto one = [&load, seed](size_t index) { return use_some(load, sim::mix_seed(seed, index)); };
  co_await when_all(30, one);
}

TEST(SemaphoreTest, TheBoundHoldsAndAllAreServedInAnyOrder) {
  sim::for_each_seed(50, [](uint64_t seed) {
    TestExecutor executor(seed);
    Load load;
    auto make = [&load, seed] { return use_by_many(load, seed); };
    ASSERT_TRUE(executor.run(make).ok());
    EXPECT_EQ(load.done, 600u);
    EXPECT_LE(load.in_use_max, 16u);
    EXPECT_GT(load.in_use_max, 8u);
    EXPECT_EQ(load.semaphore.free(), 16u);
  });
}

TEST(SemaphoreDeathTest, MoreThanThereIsCannotBeAcquired) {
  EXPECT_DEATH(
      {
        Semaphore semaphore(4);
        static_cast<void>(semaphore.acquire(5));
      },
      "CHECK failed: units <= semaphore.total_");
}

struct Guarded {
  Mutex mutex;
  bool inside = false;
  std::vector<size_t> order;
};
Task<void> enter(Guarded& guarded, size_t index) {
  MutexLock lock = co_await guarded.mutex.lock();
  EXPECT_FALSE(guarded.inside);
  guarded.inside = true;
  guarded.order.push_back(index);
  co_await Yield();
  guarded.inside = false;
}
Task<void> enter_all(Guarded& guarded) {
  auto one = [&guarded](size_t index) { return enter(guarded, index); };
  co_await when_all(50, one);
}

TEST(MutexTest, OneAtATimeInTheOrderOfArrival) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestExecutor executor(seed);
    Guarded guarded;
    auto make = [&guarded] { return enter_all(guarded); };
    ASSERT_TRUE(executor.run(make).ok());
    for (size_t i = 0; i < 50; ++i) EXPECT_EQ(guarded.order[i], i);
    EXPECT_FALSE(guarded.mutex.is_locked());
  });
}

// --- Gate ----------------------------------------------------------------------------------------

Task<void> close_gate(Gate& gate, std::string& log) {
  co_await gate.close();
  log += 'C';
}

TEST(GateTest, CloseWaitsForAllInsideAndRefusesNewcomers) {
  TestExecutor executor;
  std::string log;
  Gate gate;
  std::optional<GatePass> first(std::in_place), second(std::in_place);
  ASSERT_TRUE(gate.try_enter(*first));
  ASSERT_TRUE(gate.try_enter(*second));
  EXPECT_EQ(gate.inside(), 2u);
  RootTask<void> closing(close_gate(gate, log));
  GatePass late;
  EXPECT_FALSE(gate.try_enter(late));
  first.reset();
  executor.run_ready();
  EXPECT_EQ(log, "");
  GatePass moved = std::move(*second);
  second.reset();
  executor.run_ready();
  EXPECT_EQ(log, "") << "the pass has only moved";
  moved.leave();
  moved.leave();
  executor.run_ready();
  EXPECT_EQ(log, "C");
  EXPECT_EQ(gate.inside(), 0u);
}

TEST(GateTest, AnEmptyGateClosesAtOnceForEveryone) {
  TestExecutor executor;
  std::string log;
  Gate gate;
  {
    GatePass pass;
    ASSERT_TRUE(gate.try_enter(pass));
  }
  RootTask<void> a(close_gate(gate, log));
  RootTask<void> b(close_gate(gate, log));
  EXPECT_EQ(log, "CC");
  EXPECT_TRUE(gate.is_closed());
}

TEST(GateTest, EnteringWithAPassThatIsInsideLeavesFirst) {
  Gate gate;
  GatePass pass;
  ASSERT_TRUE(gate.try_enter(pass));
  ASSERT_TRUE(gate.try_enter(pass));
  EXPECT_EQ(gate.inside(), 1u);
}

}  // namespace
}  // namespace ringdisk
