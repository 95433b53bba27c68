// SPDX-License-Identifier: Apache-2.0
// Structured concurrency: nothing travels on before all children are done.
#include "async/scope.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/executor_test.h"
#include "async/yield.h"
#include "sim/seeds.h"

namespace ringdisk {
namespace {

Error some_error(int errno_value) { return Error::from_errno(errno_value, "test"); }

// What the coroutines of a test share.
struct Stage {
  std::string log;
  Event first, second;
};

Task<void> wait_and_log(Event& event, std::string& log, char name) {
  LastWords words(log, name);
  co_await event.wait();
  log += '.';
}
Task<void> wait_and_fail(Event& event, std::string& log, char name, int errno_value) {
  LastWords words(log, name);
  co_await event.wait();
  co_await fail(some_error(errno_value));
}
Task<void> until_cancelled(CancelToken token, std::string& log, char name) {
  LastWords words(log, name);
  Event never;
  Result<void> woken = co_await never.wait_or_cancel(token);
  log += woken.ok() ? '+' : 'x';
  co_await std::move(woken);
}
Task<void> fail_at_once(int errno_value) { co_await fail(some_error(errno_value)); }

// --- with_scope ----------------------------------------------------------------------------------

Task<int> spawn_two(Scope& scope, Stage& stage) {
  LastWords words(stage.log, 'B');
  scope.spawn(wait_and_log(stage.first, stage.log, 'a'));
  scope.spawn(wait_and_log(stage.second, stage.log, 'b'));
  EXPECT_EQ(scope.running(), 2u);
  co_return 9;
}
Task<int> run_two(Stage& stage) {
  int value = co_await with_scope(&spawn_two, stage);
  stage.log += '=';
  co_return value;
}

TEST(ScopeTest, JoinsAllChildrenBeforeTheValueTravelsOn) {
  TestExecutor executor;
  Stage stage;
  RootTask<int> root(run_two(stage));
  EXPECT_EQ(stage.log, "B");
  stage.second.set();
  executor.run_ready();
  EXPECT_EQ(stage.log, "B.b");
  EXPECT_FALSE(root.is_settled());
  stage.first.set();
  executor.run_ready();
  EXPECT_EQ(stage.log, "B.b.a=");
  ASSERT_TRUE(root.is_settled());
  EXPECT_EQ(root.take_result().value(), 9);
}

Task<void> body_fails(Scope& scope, Stage& stage) {
  LastWords words(stage.log, 'B');
  scope.spawn(until_cancelled(scope.token(), stage.log, 'a'));
  scope.spawn(wait_and_log(stage.first, stage.log, 'b'));
  co_await fail_at_once(ENOSPC);
}
Task<void> run_body_fails(Stage& stage) {
  LastWords words(stage.log, 'W');
  co_await with_scope(&body_fails, stage);
}

TEST(ScopeTest, AnErrorOfTheBodyCancelsTheChildrenAndWaitsForThem) {
  TestExecutor executor;
  Stage stage;
  {
    RootTask<void> root(run_body_fails(stage));
    executor.run_ready();
    // The body's frame is gone, one child has heard of it, the other one goes on in its own time.
    EXPECT_EQ(stage.log, "Bxa");
    EXPECT_FALSE(root.is_settled());
    stage.first.set();
    executor.run_ready();
    ASSERT_TRUE(root.is_settled());
    EXPECT_EQ(root.take_result().error().errno_value, ENOSPC);
  }
  EXPECT_EQ(stage.log, "Bxa.bW");
  EXPECT_EQ(executor.frames().live(), 0u);
}

Task<void> child_fails(Scope& scope, Stage& stage) {
  scope.spawn(wait_and_fail(stage.first, stage.log, 'a', EIO));
  scope.spawn(until_cancelled(scope.token(), stage.log, 'b'));
  co_await until_cancelled(scope.token(), stage.log, 'B');
}
Task<void> run_child_fails(Stage& stage) { co_await with_scope(&child_fails, stage); }

TEST(ScopeTest, AnErrorOfAChildEndsTheOthersAndTheBodyAndIsTheResult) {
  TestExecutor executor;
  Stage stage;
  RootTask<void> root(run_child_fails(stage));
  stage.first.set();
  executor.run_ready();
  ASSERT_TRUE(root.is_settled());
  // Not ECANCELED, with which the others ended.
  EXPECT_EQ(root.take_result().error().errno_value, EIO);
  EXPECT_EQ(stage.log.substr(0, 1), "a");
  EXPECT_EQ(stage.log.size(), 5u);
}

Task<int> child_fails_at_once(Scope& scope) {
  scope.spawn(fail_at_once(ENXIO));
  EXPECT_TRUE(scope.token().is_cancelled());
  EXPECT_EQ(scope.running(), 0u);
  scope.spawn(fail_at_once(EIO));
  co_return 5;
}
Task<int> run_child_fails_at_once() { co_return co_await with_scope(&child_fails_at_once); }

TEST(ScopeTest, TheFirstErrorCountsAndTheBodysValueIsDropped) {
  TestExecutor executor;
  EXPECT_EQ(executor.run(&run_child_fails_at_once).error().errno_value, ENXIO);
}

Task<void> body_fails_after_child(Scope& scope, Stage& stage) {
  scope.spawn(wait_and_fail(stage.first, stage.log, 'a', EIO));
  co_await stage.first.wait();
  co_await fail_at_once(ENOSPC);
}
Task<void> run_body_fails_after_child(Stage& stage) {
  co_await with_scope(&body_fails_after_child, stage);
}

TEST(ScopeTest, AnErrorOfTheBodyThatIsNoCancellationIsTheResult) {
  TestExecutor executor;
  Stage stage;
  RootTask<void> root(run_body_fails_after_child(stage));
  stage.first.set();
  executor.run_ready();
  EXPECT_EQ(root.take_result().error().errno_value, ENOSPC);
}

Task<void> spawn_grandchild(Scope& scope, Stage& stage) {
  LastWords words(stage.log, 'c');
  co_await stage.first.wait();
  scope.spawn(wait_and_log(stage.second, stage.log, 'g'));
}
Task<void> spawn_child(Scope& scope, Stage& stage) {
  scope.spawn(spawn_grandchild(scope, stage));
  co_return;
}
Task<void> run_spawn_child(Stage& stage) { co_await with_scope(&spawn_child, stage); }

TEST(ScopeTest, ChildrenMaySpawnIntoTheirScopeWhileItsOwnerJoins) {
  TestExecutor executor;
  Stage stage;
  RootTask<void> root(run_spawn_child(stage));
  stage.first.set();
  executor.run_ready();
  EXPECT_EQ(stage.log, "c");
  EXPECT_FALSE(root.is_settled());
  stage.second.set();
  executor.run_ready();
  EXPECT_EQ(stage.log, "c.g");
  EXPECT_TRUE(root.is_settled());
}

Task<void> yield_some(uint32_t times, uint64_t& sum) {
  for (uint32_t i = 0; i < times; ++i) co_await Yield();
  sum += times;
}
Task<void> spawn_many(Scope& scope, uint64_t& sum) {
  for (uint32_t i = 0; i < 1000; ++i) scope.spawn(yield_some(i % 7, sum));
  co_return;
}
Task<void> run_many(uint64_t& sum) { co_await with_scope(&spawn_many, sum); }

TEST(ScopeTest, AThousandChildrenInAnyOrder) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestExecutor executor(seed);
    uint64_t sum = 0;
    auto make = [&sum] { return run_many(sum); };
    ASSERT_TRUE(executor.run(make).ok());
    EXPECT_EQ(sum, 2997u);  // 142 * 21 + (0 + 1 + 2 + 3 + 4 + 5)
    EXPECT_EQ(executor.frames().live(), 0u);
  });
}

// --- a scope as a local, left early --------------------------------------------------------------

Task<void> leave_open_scopes(Stage& stage, bool fails_at_once) {
  LastWords words(stage.log, 'L');
  PromiseBase& self = co_await SelfAwaiter();
  Scope outer(self);
  LastWords between(stage.log, 'M');
  Scope inner(self);
  outer.spawn(wait_and_log(stage.first, stage.log, 'a'));
  outer.spawn(until_cancelled(outer.token(), stage.log, 'x'));
  inner.spawn(wait_and_log(stage.second, stage.log, 'b'));
  inner.spawn(until_cancelled(inner.token(), stage.log, 'y'));
  if (!fails_at_once) co_await Yield();
  co_await fail_at_once(EDQUOT);
}
Task<void> look(Stage& stage, bool fails_at_once) {
  Result<void> result = co_await leave_open_scopes(stage, fails_at_once).result();
  stage.log += result.ok() ? '+' : '-';
  co_await std::move(result);
}

void expect_open_scopes_are_joined(bool fails_at_once) {
  TestExecutor executor;
  Stage stage;
  RootTask<void> root(look(stage, fails_at_once));
  executor.run_ready();
  // Both were cancelled, and the locals live on while children that refer to them run.
  EXPECT_EQ(stage.log.find_first_of("LM-"), std::string::npos) << stage.log;
  EXPECT_EQ(stage.log.size(), 4u) << "two cancelled children have ended: " << stage.log;
  stage.first.set();
  executor.run_ready();
  EXPECT_FALSE(root.is_settled());
  stage.second.set();
  executor.run_ready();
  ASSERT_TRUE(root.is_settled());
  EXPECT_EQ(stage.log.substr(4), ".a.bML-");
  EXPECT_EQ(root.take_result().error().errno_value, EDQUOT);
}

TEST(ScopeTest, AnEarlyExitCancelsAndJoinsOpenScopes) { expect_open_scopes_are_joined(true); }
TEST(ScopeTest, AnEarlyExitAfterASuspensionCancelsAndJoinsOpenScopes) {
  expect_open_scopes_are_joined(false);
}

Task<void> run_pieces_in_open_scope(Stage& stage) {
  PromiseBase& self = co_await SelfAwaiter();
  Scope scope(self);
  scope.spawn(wait_and_log(stage.second, stage.log, 'a'));
  auto piece = [&stage](size_t) { return wait_and_fail(stage.first, stage.log, 'p', EIO); };
  co_await when_all(2, piece);
  Result<void> joined = co_await scope.join();
  co_await std::move(joined);
}

TEST(ScopeTest, AnErrorOfPiecesJoinsTheScopeOfTheirOwnerToo) {
  TestExecutor executor;
  Stage stage;
  RootTask<void> root(run_pieces_in_open_scope(stage));
  stage.first.set();
  executor.run_ready();
  EXPECT_EQ(stage.log, "pp");
  EXPECT_FALSE(root.is_settled());
  stage.second.set();
  executor.run_ready();
  ASSERT_TRUE(root.is_settled());
  EXPECT_EQ(root.take_result().error().errno_value, EIO);
}

// --- when_all ------------------------------------------------------------------------------------

Task<void> note_index(std::vector<size_t>& seen, size_t index) {
  if (index % 2 != 0) co_await Yield();
  seen.push_back(index);
}
Task<void> note_all(std::vector<size_t>& seen, size_t count) {
  auto one = [&seen](size_t index) { return note_index(seen, index); };
  co_await when_all(count, one);
}

TEST(WhenAllTest, RunsEachIndexOnce) {
  TestExecutor executor;
  for (size_t count : {0, 1, 2, 7, 300}) {
    std::vector<size_t> seen;
    auto make = [&seen, count] { return note_all(seen, count); };
    ASSERT_TRUE(executor.run(make).ok());
    std::sort(seen.begin(), seen.end());
    ASSERT_EQ(seen.size(), count);
    for (size_t i = 0; i < count; ++i) EXPECT_EQ(seen[i], i);
  }
}

Task<void> piece_of(Stage& stage, size_t index) {
  LastWords words(stage.log, static_cast<char>('a' + index));
  if (index == 0) co_await stage.second.wait();
  if (index == 1) co_await fail_at_once(ENOSPC);
  if (index == 2) co_await stage.first.wait();
  if (index == 2) co_await fail_at_once(EIO);
}
Task<void> pieces_of(Stage& stage) {
  auto one = [&stage](size_t index) { return piece_of(stage, index); };
  co_await when_all(4, one);
}
Task<void> look_at_pieces(Stage& stage) {
  Result<void> result = co_await pieces_of(stage).result();
  stage.log += '-';
  co_await std::move(result);
}

TEST(WhenAllTest, AwaitsAllPiecesAndGivesTheFirstError) {
  TestExecutor executor;
  Stage stage;
  RootTask<void> root(look_at_pieces(stage));
  EXPECT_EQ(stage.log, "bd");
  stage.first.set();
  executor.run_ready();
  EXPECT_EQ(stage.log, "bdc");
  EXPECT_FALSE(root.is_settled());
  stage.second.set();
  executor.run_ready();
  ASSERT_TRUE(root.is_settled());
  EXPECT_EQ(stage.log, "bdca-");
  EXPECT_EQ(root.take_result().error().errno_value, ENOSPC);
}

Task<void> refuse_index(size_t index) { co_await fail_at_once(static_cast<int>(index + 1)); }
Task<void> all_refuse() {
  auto one = [](size_t index) { return refuse_index(index); };
  co_await when_all(5, one);
}

TEST(WhenAllTest, PiecesThatAllFailAtOnce) {
  TestExecutor executor;
  EXPECT_EQ(executor.run(&all_refuse).error().errno_value, 1);
  EXPECT_EQ(executor.frames().live(), 0u);
}

TEST(ScopeDeathTest, AScopeCannotBeLeftWithChildrenRunning) {
  EXPECT_DEATH(
      {
        TestExecutor executor;
        Stage stage;
        auto make = [&stage]() -> Task<void> {
          PromiseBase& self = co_await SelfAwaiter();
          Scope scope(self);
          scope.spawn(wait_and_log(stage.first, stage.log, 'a'));
        };
        RootTask<void> root(make());
      },
      "CHECK failed: running_ == uint32_t");
}

}  // namespace
}  // namespace ringdisk
