// SPDX-License-Identifier: Apache-2.0
// Real signals to this process, on both loops: which cancels what, and what they do afterwards.
#include "control/stop_signals.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>

#include "async/event.h"
#include "async/scope.h"
#include "runtime/real_loops_test.h"

namespace ringdisk {
namespace {

class StopSignalsTest : public RealLoopsTest {
 protected:
  void SetUp() override {
    RealLoopsTest::SetUp();
    pthread_sigmask(SIG_SETMASK, nullptr, &before_);
  }
  void TearDown() override { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  static bool is_blocked(int signal) {
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    return sigismember(&now, signal) == 1;
  }

 private:
  sigset_t before_;
};

Task<void> wait_for(CancelSource& source) {
  Event never;
  Result<void> waited = co_await never.wait_or_cancel(source.token());
  EXPECT_FALSE(waited.ok());
}

TEST_P(StopSignalsTest, TheFirstCancelsTheFirstAndTheSecondTheSecond) {
  StopSignals signals;
  ASSERT_TRUE(signals.start().ok());
  CancelSource stop, hurry;
  CancelSource* const sources[] = {&stop, &hurry};
  auto steps = [&](Scope& scope) -> Task<void> {
    scope.spawn(signals.watch(Shard::current(), sources, scope.token()));
    EXPECT_EQ(kill(getpid(), SIGTERM), 0);
    co_await wait_for(stop);
    EXPECT_EQ(signals.received(), SIGTERM);
    EXPECT_FALSE(hurry.is_cancelled());
    EXPECT_TRUE(is_blocked(SIGINT)) << "one more has yet to be read";
    EXPECT_EQ(kill(getpid(), SIGINT), 0);
    co_await wait_for(hurry);
    EXPECT_EQ(signals.received(), SIGINT);
    EXPECT_FALSE(is_blocked(SIGINT)) << "one more ends the process";
    EXPECT_FALSE(is_blocked(SIGTERM));
  };
  auto root = [&](Shard&) { return with_scope(steps); };
  EXPECT_TRUE(run(2, root).ok());
}

TEST_P(StopSignalsTest, AWatchThatIsNotNeededAnyMoreEnds) {
  StopSignals signals;
  ASSERT_TRUE(signals.start().ok());
  CancelSource stop;
  CancelSource* const sources[] = {&stop};
  auto steps = [&](Scope& scope) -> Task<void> {
    scope.spawn(signals.watch(Shard::current(), sources, scope.token()));
    Result<void> slept = co_await Shard::current().sleep(std::chrono::milliseconds(1));
    EXPECT_TRUE(slept.ok());
    scope.cancel();
  };
  auto root = [&](Shard&) { return with_scope(steps); };
  EXPECT_TRUE(run(1, root).ok());
  EXPECT_EQ(signals.received(), 0);
  EXPECT_FALSE(stop.is_cancelled());
}

TEST_P(StopSignalsTest, BrokenPipesAreBlockedWhenAskedFor) {
  StopSignals signals;
  ASSERT_TRUE(signals.start().ok());
  EXPECT_TRUE(is_blocked(SIGHUP));
  EXPECT_FALSE(is_blocked(SIGPIPE));
  ASSERT_TRUE(ignore_broken_pipes().ok());
  EXPECT_TRUE(is_blocked(SIGPIPE));
}

RINGDISK_ON_BOTH_LOOPS(StopSignalsTest);

}  // namespace
}  // namespace ringdisk
