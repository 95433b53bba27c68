// SPDX-License-Identifier: Apache-2.0
// What a Task is: lazy, immovable, gone before its caller goes on; how values and errors reach who
// waits.
#include "async/task.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>

#include "async/event.h"
#include "async/executor_test.h"

namespace ringdisk {
namespace {

Error some_error(int errno_value) { return Error::from_errno(errno_value, "test", 7); }

Task<int> give(int value) { co_return value; }
Task<int> refuse(int errno_value) { co_return some_error(errno_value); }
Task<void> refuse_void(int errno_value) { co_await fail(some_error(errno_value)); }

TEST(TaskTest, GivesItsValue) {
  TestExecutor executor;
  auto make = [] { return give(42); };
  Result<int> got = executor.run(make);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got.value(), 42);
  EXPECT_EQ(executor.frames().live(), 0u);
}

TEST(TaskTest, GivesItsErrorWithAllItsFields) {
  TestExecutor executor;
  auto make = [] { return refuse(ENOSPC); };
  Result<int> got = executor.run(make);
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().errno_value, ENOSPC);
  EXPECT_EQ(got.error().kind, ErrorKind::kNoSpace);
  EXPECT_EQ(got.error().offset, 7u);
  EXPECT_STREQ(got.error().operation, "test");
}

Task<void> mark(bool& ran) {
  ran = true;
  co_return;
}

TEST(TaskTest, DoesNothingBeforeItIsAwaited) {
  TestExecutor executor;
  bool ran = false;
  { Task<void> never = mark(ran); }
  EXPECT_FALSE(ran);
  EXPECT_EQ(executor.frames().live(), 0u);
  auto make = [&ran] { return mark(ran); };
  ASSERT_TRUE(executor.run(make).ok());
  EXPECT_TRUE(ran);
}

// Value types: moved, never copied.
Task<std::unique_ptr<int>> give_owned(int value) { co_return std::make_unique<int>(value); }
Task<int> open_owned() {
  std::unique_ptr<int> owned = co_await give_owned(5);
  Result<std::unique_ptr<int>> result = co_await give_owned(6).result();
  std::unique_ptr<int> second = co_await std::move(result);
  co_return *owned * 10 + *second;
}

TEST(TaskTest, MovesValuesThatCannotBeCopied) {
  TestExecutor executor;
  Result<int> got = executor.run(&open_owned);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got.value(), 56);
}

Task<std::string> give_after(Event& event, std::string text) {
  co_await event.wait();
  co_return text + "!";
}
Task<std::string> twice_after(Event& event) {
  std::string first = co_await give_after(event, "a long text that does not fit in the object");
  std::string second = co_await give_after(event, "b");
  co_return first + second;
}

TEST(TaskTest, GoesOnWhenWhatItWaitsForHasHappened) {
  TestExecutor executor;
  Event event;
  RootTask<std::string> root(twice_after(event));
  executor.run_ready();
  EXPECT_FALSE(root.is_settled());
  event.set();
  EXPECT_FALSE(root.is_settled()) << "nothing resumes inside of somebody else's function";
  executor.run_ready();
  ASSERT_TRUE(root.is_settled());
  EXPECT_EQ(root.take_result().value(), "a long text that does not fit in the object!b!");
}

// --- early exit ----------------------------------------------------------------------------------

// Waits for `event` where there is one, then fails.
Task<void> inner(std::string& log, Event* event) {
  LastWords a(log, 'a');
  LastWords b(log, 'b');
  if (event) co_await event->wait();
  co_await refuse_void(EIO);
  log += "inner went on";
}
Task<int> middle(std::string& log, Event* event) {
  LastWords c(log, 'c');
  co_await inner(log, event);
  log += "middle went on";
  co_return 1;
}
Task<void> outer(std::string& log, Event* event) {
  LastWords d(log, 'd');
  Result<int> result = co_await middle(log, event).result();
  log += result.ok() ? '+' : '-';
  EXPECT_EQ(result.error().errno_value, EIO);
}

TEST(EarlyExitTest, LocalsDieInnermostFirstBeforeTheResultIsSeen) {
  TestExecutor executor;
  std::string log;
  auto make = [&log] { return outer(log, nullptr); };
  ASSERT_TRUE(executor.run(make).ok());
  EXPECT_EQ(log, "bac-d");
  EXPECT_EQ(executor.frames().live(), 0u);
}

TEST(EarlyExitTest, LocalsDieInnermostFirstAfterASuspensionToo) {
  TestExecutor executor;
  std::string log;
  Event event;
  RootTask<void> root(outer(log, &event));
  executor.run_ready();
  EXPECT_EQ(log, "");
  event.set();
  executor.run_ready();
  ASSERT_TRUE(root.is_settled());
  EXPECT_TRUE(root.take_result().ok());
  EXPECT_EQ(log, "bac-d");
}

Task<void> both_ways(std::string& log, Event* event) {
  Result<int> first = co_await middle(log, event).result();
  log += first.ok() ? '+' : '-';
  co_await middle(log, event);
  log += "both_ways went on";
}

TEST(EarlyExitTest, TheRootSeesTheErrorAndFreesTheChain) {
  TestExecutor executor;
  std::string log;
  {
    RootTask<void> root(both_ways(log, nullptr));
    ASSERT_TRUE(root.is_settled());
    EXPECT_EQ(log, "bac-") << "the second chain waits for its owner";
    EXPECT_EQ(root.take_result().error().errno_value, EIO);
  }
  EXPECT_EQ(log, "bac-bac");
  EXPECT_EQ(executor.frames().live(), 0u);
}

Result<int> plain(int errno_value) {
  if (errno_value != 0) return some_error(errno_value);
  return 3;
}
Result<void> plain_void(int errno_value) {
  if (errno_value != 0) return some_error(errno_value);
  return {};
}
Task<int> unwrap(std::string& log, int first, int second) {
  LastWords a(log, 'a');
  int value = co_await plain(first);
  LastWords b(log, 'b');
  co_await plain_void(second);
  log += '.';
  co_return value;
}

TEST(EarlyExitTest, APlainResultEndsTheCoroutineLikeATask) {
  TestExecutor executor;
  std::string log;
  int first = 0, second = 0;
  auto make = [&] { return unwrap(log, first, second); };
  EXPECT_EQ(executor.run(make).value(), 3);
  EXPECT_EQ(log, ".ba");
  log.clear();
  second = EACCES;
  EXPECT_EQ(executor.run(make).error().errno_value, EACCES);
  EXPECT_EQ(log, "ba");
  log.clear();
  first = ENOENT;
  EXPECT_EQ(executor.run(make).error().errno_value, ENOENT);
  EXPECT_EQ(log, "a");
}

Task<int> return_result(int errno_value) { co_return plain(errno_value); }
Task<int> return_awaited(int errno_value) {
  co_return co_await return_result(errno_value).result();
}

TEST(EarlyExitTest, AResultMayBeReturnedAsItIs) {
  TestExecutor executor;
  auto good = [] { return return_awaited(0); };
  EXPECT_EQ(executor.run(good).value(), 3);
  auto bad = [] { return return_awaited(EPERM); };
  EXPECT_EQ(executor.run(bad).error().errno_value, EPERM);
}

Task<int> deep(int depth, Event& event) {
  if (depth == 0) {
    co_await event.wait();
    co_return some_error(ENXIO);
  }
  int below = co_await deep(depth - 1, event);
  co_return below + 1;
}

TEST(EarlyExitTest, AnErrorPassesAThousandFramesWhichAllAreFreed) {
  TestExecutor executor;
  Event event;
  {
    RootTask<int> root(deep(1000, event));
    EXPECT_EQ(executor.frames().live(), 1001u);
    event.set();
    executor.run_ready();
    ASSERT_TRUE(root.is_settled());
    EXPECT_EQ(root.take_result().error().errno_value, ENXIO);
  }
  EXPECT_EQ(executor.frames().live(), 0u);
}

Task<void> try_again_and_again(int times, int& failures) {
  for (int i = 0; i < times; ++i) {
    Result<int> result = co_await refuse(EAGAIN).result();
    failures += !result.ok();
  }
}

TEST(EarlyExitTest, AFailedChainIsFreedBeforeTheNextOneIsMade) {
  TestExecutor executor;
  int failures = 0;
  auto make = [&failures] { return try_again_and_again(1000, failures); };
  ASSERT_TRUE(executor.run(make).ok());
  EXPECT_EQ(failures, 1000);
  EXPECT_EQ(executor.frames().live_max(), 2u);
  EXPECT_LE(executor.frames().system_allocations(), 2u);
}

// A parameter by value lives in the frame, and dies with it.
Task<void> keep(std::shared_ptr<int> owned, Event& event) {
  co_await event.wait();
  co_await fail(some_error(*owned));
}

TEST(EarlyExitTest, ParametersDieWithTheFrame) {
  TestExecutor executor;
  Event event;
  auto owned = std::make_shared<int>(EBADF);
  {
    RootTask<void> root(keep(owned, event));
    EXPECT_EQ(owned.use_count(), 2);
    event.set();
    executor.run_ready();
    EXPECT_EQ(root.take_result().error().errno_value, EBADF);
  }
  EXPECT_EQ(owned.use_count(), 1);
}

Task<void> wait_for(Event& event) { co_await event.wait(); }

TEST(TaskDeathTest, ARunningTaskCannotBeDropped) {
  EXPECT_DEATH(
      {
        TestExecutor executor;
        Event event;
        RootTask<void> root(wait_for(event));
      },
      "CHECK failed: promise_.is_settled");
}

}  // namespace
}  // namespace ringdisk
