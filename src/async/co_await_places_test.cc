// SPDX-License-Identifier: Apache-2.0
// Holds both compilers to what the project relies on: in every place where co_await may stand, each
// object is destroyed exactly once and nothing hangs, whichever of the awaits fails, at once or
// after a suspension.
//
// Allowed, and run here: a statement of its own, the whole initialiser of one plain variable, the
// right side of an assignment, the operand of co_return; with arguments that are names, literals,
// plain calls and constructor-style temporaries; in the body of any loop, branch, switch or block;
// of tasks, results, combinators and primitives.
//
// Forbidden by scripts/tidy, and therefore not here (docs/decisions/0002-tasks.md). g++ 12.2 is
// silently wrong, mostly on the path of success too: in the head of if, while, for, do, switch (the
// body may never run); in a ?: of class type; in braced aggregates and arrays beside a non-trivial
// member, and beside a braced non-trivial temporary, even {} (destroyed twice); with a temporary
// lambda that has captures. It does not compile initializer_list or x && co_await y. clang 16 is
// right there, but leaks the elements already built when an await inside of a braced aggregate,
// array or list fails. For the reader's sake alone: in the middle of a larger expression, in
// range-for, in structured bindings, as an argument.
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "async/mutex.h"
#include "async/range_lock.h"
#include "async/scope.h"
#include "async/steps_test.h"
#include "async/yield.h"

namespace ringdisk {
namespace {

// --- what is awaited -----------------------------------------------------------------------------

Task<void> step_void() { co_await step(); }
Task<Tracked> step_tracked(int value = 1) {
  int number = co_await step(value);
  co_return Tracked(number);
}
Task<std::string> step_string() {
  int number = co_await step();
  co_return std::string(40, static_cast<char>('a' + number));
}
Task<std::unique_ptr<Tracked>> step_owned() {
  int number = co_await step();
  co_return std::make_unique<Tracked>(number);
}
Task<std::vector<Tracked>> step_list() {
  int number = co_await step();
  std::vector<Tracked> list(3, Tracked(number));
  co_return std::move(list);
}
Task<int> by_value(Tracked a, std::string text) {
  int number = co_await step();
  co_return number + a.number() + static_cast<int>(text.size());
}
Task<int> by_reference(const Tracked& a, const std::string& text) {
  int number = co_await step();
  co_return number + a.number() + static_cast<int>(text.size());
}
Result<int> result_step() {
  if (StepRun::current().next_fails()) return Error::from_errno(EIO, "step");
  return 1;
}
Tracked make_tracked(int number) { return Tracked(number); }
const Tracked& same(const Tracked& tracked) { return tracked; }

struct OptionStruct {
  explicit OptionStruct(int n) : number(n) {}
  int number;
  std::string name = "a name that is too long for the object itself";
  Tracked tracked;
};
Task<int> with_options(OptionStruct options) {
  int number = co_await step();
  co_return number + options.number + options.tracked.number();
}
Task<int> with_options_reference(const OptionStruct& options) {
  int number = co_await step();
  co_return number + options.number + options.tracked.number();
}

// --- the places ----------------------------------------------------------------------------------

Task<int> statement() {
  Tracked a;
  co_await step_void();
  Tracked b;
  co_await step();
  co_return a.number() + b.number();
}
Task<int> discarded_value() {
  co_await step_tracked();
  (void)co_await step_tracked();
  (void)co_await step_owned();
  co_return 0;
}
Task<int> initialiser() {
  int number = co_await step();
  Tracked a = co_await step_tracked();
  const Tracked b = co_await step_tracked(2);
  std::string text = co_await step_string();
  co_return number + a.number() + b.number() + static_cast<int>(text.size());
}
Task<int> initialiser_auto() {
  auto a = co_await step_tracked();
  const auto text = co_await step_string();
  co_return a.number() + static_cast<int>(text.size());
}
Task<int> initialiser_reference() {
  const Tracked& a = co_await step_tracked();
  auto&& b = co_await step_tracked();
  int number = co_await step();
  co_return number + a.number() + b.number();
}
Task<int> initialiser_optional() {
  std::optional<Tracked> a = co_await step_tracked();
  a = co_await step_tracked(2);
  co_return a->number();
}
Task<int> initialiser_owned() {
  std::unique_ptr<Tracked> a = co_await step_owned();
  std::unique_ptr<Tracked> b = co_await step_owned();
  a = co_await step_owned();
  co_return a->number() + b->number();
}
Task<int> assignment() {
  Tracked a;
  a = co_await step_tracked();
  int numbers[2] = {};
  numbers[1] = co_await step();
  std::vector<Tracked> list(2);
  list[0] = co_await step_tracked(5);
  co_return a.number() + numbers[1] + list[0].number();
}
Task<int> assignment_to_member() {
  OptionStruct options(3);
  options.number = co_await step();
  options.name = co_await step_string();
  options.tracked = co_await step_tracked();
  co_return options.number + options.tracked.number();
}
Task<int> return_value() {
  Tracked a;
  co_return co_await step();
}
Task<Tracked> return_tracked_inner() { co_return co_await step_tracked(); }
Task<int> return_class() {
  Tracked a = co_await return_tracked_inner();
  co_return a.number();
}
Task<Tracked> return_result_inner() { co_return co_await step_tracked().result(); }
Task<int> return_result() {
  Tracked a = co_await return_result_inner();
  co_return a.number();
}

// Arguments.
Task<int> literal_arguments() {
  int number = co_await by_value(Tracked(2), "a literal that does not fit in the object itself");
  co_return number;
}
Task<int> named_arguments() {
  Tracked a(2);
  std::string text(100, 'x');
  int by_copy = co_await by_value(a, text);
  int by_name = co_await by_reference(a, text);
  co_return by_copy + by_name;
}
Task<int> moved_arguments() {
  Tracked a(2);
  std::string text(100, 'x');
  int number = co_await by_value(std::move(a), std::move(text));
  co_return number + a.number();
}
Task<int> temporary_arguments() {
  int first = co_await by_value(Tracked(3), std::string(50, 'y'));
  int second = co_await by_reference(Tracked(3), std::string(50, 'y'));
  co_return first + second;
}
Task<int> called_arguments() {
  std::string text = "text";
  int first = co_await by_value(make_tracked(4), text + " that is made longer by a call");
  int second = co_await by_reference(same(make_tracked(4)), text);
  co_return first + second;
}
Task<int> option_arguments() {
  OptionStruct named(7);
  int first = co_await with_options(named);
  int second = co_await with_options_reference(named);
  int third = co_await with_options(OptionStruct(8));
  int fourth = co_await with_options_reference(OptionStruct(9));
  co_return first + second + third + fourth;
}
Task<int> member_of_local() {
  Tracked a(5);
  int number = co_await a.number_after_step();
  co_return number;
}
Task<int> member_of_temporary() {
  int number = co_await Tracked(5).number_after_step();
  co_return number;
}
Task<int> member_through_pointer() {
  std::unique_ptr<Tracked> a = co_await step_owned();
  int number = co_await a->number_after_step();
  co_return number;
}

// Where statements may stand.
Task<int> in_if_and_else() {
  Tracked a;
  int number = 0;
  if (a.number() == 1) {
    Tracked inside;
    number = co_await step();
  } else {
    number = co_await step(2);
  }
  if (number == 1) number = co_await step(3);
  if (number == 4)
    co_await step_void();
  else
    co_await step_tracked();
  co_return number;
}
Task<int> in_while() {
  int number = 0;
  while (number < 3) {
    Tracked inside;
    int more = co_await step();
    number += more;
    if (number == 2) continue;
    co_await step_void();
  }
  co_return number;
}
Task<int> in_for() {
  int sum = 0;
  for (Tracked i(0); i.number() < 2; i = Tracked(i.number() + 1)) {
    Tracked inside;
    Tracked more = co_await step_tracked();
    sum += more.number();
  }
  co_return sum;
}
Task<int> in_range_for() {
  std::vector<Tracked> list = co_await step_list();
  int sum = 0;
  for (const Tracked& one : list) {
    Tracked inside = one;
    int more = co_await inside.number_after_step();
    sum += more;
    if (sum > 4) break;
  }
  co_return sum;
}
Task<int> in_do() {
  int number = 0;
  do {
    Tracked inside;
    co_await step_void();
    ++number;
  } while (number < 2);
  co_return number;
}
Task<int> in_switch() {
  int which = co_await step();
  switch (which) {
    case 1: {
      Tracked inside;
      co_await step_void();
      break;
    }
    case 2:
      co_await step_void();
      break;
    default:
      co_return co_await step();
  }
  co_return which;
}
Task<int> in_blocks() {
  {
    Tracked a;
    co_await step_void();
  }
  Tracked b;
  {
    Tracked c;
    co_await step_void();
    Tracked d;
    co_await step_void();
  }
  co_return b.number();
}
Task<int> return_from_the_middle() {
  Tracked a;
  for (int i = 0; i < 3; ++i) {
    Tracked inside(i);
    int number = co_await step(i);
    if (number == 1) co_return co_await inside.number_after_step();
  }
  co_return 0;
}

// Results.
Task<int> plain_results() {
  Tracked a;
  int first = co_await result_step();
  Tracked b;
  int second = 0;
  second = co_await result_step();
  co_await result_step();
  co_return first + second + a.number() + b.number();
}
Task<int> named_result() {
  Result<int> result = result_step();
  Tracked a;
  int number = co_await std::move(result);
  co_return number + a.number();
}
Task<int> awaited_result() {
  Result<Tracked> result = co_await step_tracked().result();
  Tracked a;
  if (!result.ok()) {
    Tracked b;
    co_return result.error();
  }
  Tracked value = co_await std::move(result);
  int number = co_await step();
  co_return number + value.number() + a.number();
}
Task<int> assigned_result() {
  Result<std::unique_ptr<Tracked>> result = co_await step_owned().result();
  if (result.ok()) result = co_await step_owned().result();
  std::unique_ptr<Tracked> owned = co_await std::move(result);
  co_return owned->number();
}
Task<int> named_task() {
  Task<int> task = step();
  Tracked a;
  int number = co_await std::move(task);
  co_return number + a.number();
}

// Lambdas: named, or without captures.
Task<int> plain_lambda() {
  auto make = []() -> Task<int> { co_return co_await step(); };
  int number = co_await make();
  co_return number;
}
Task<int> named_lambda_that_makes_tasks() {
  Tracked a(2);
  std::string text(40, 'z');
  auto make = [&text](const Tracked& b) { return by_reference(b, text); };
  int first = co_await make(a);
  int second = co_await make(Tracked(6));
  co_return first + second;
}

// Combinators and primitives.
Task<void> collect(std::vector<Tracked>& into, int number) {
  Tracked local(number);
  Tracked made = co_await step_tracked(number);
  into.push_back(made);
}
Task<int> pieces() {
  std::vector<Tracked> all;
  auto one = [&all](size_t index) { return collect(all, static_cast<int>(index)); };
  co_await when_all(3, one);
  co_return static_cast<int>(all.size());
}
Task<Tracked> scope_body(Scope& scope, std::vector<Tracked>& all) {
  Tracked local;
  scope.spawn(collect(all, 1));
  scope.spawn(collect(all, 2));
  co_await step_void();
  co_return co_await step_tracked();
}
Task<int> scopes() {
  std::vector<Tracked> all;
  Tracked value = co_await with_scope(&scope_body, all);
  co_return value.number() + static_cast<int>(all.size());
}
Task<int> primitives() {
  Mutex mutex;
  RangeLock ranges;
  Tracked a;
  MutexLock lock = co_await mutex.lock();
  RangeGuard guard(ranges, 1, 2);
  co_await guard.acquired();
  co_await step_void();
  co_await Yield();
  lock.release();
  lock = co_await mutex.lock();
  co_return co_await step();
}

// --- the runs ------------------------------------------------------------------------------------

struct Place {
  const char* name;
  Task<int> (*make)();
};
#define PLACE(function) \
  { #function, &function }
const Place kPlaces[] = {PLACE(statement),
                         PLACE(discarded_value),
                         PLACE(initialiser),
                         PLACE(initialiser_auto),
                         PLACE(initialiser_reference),
                         PLACE(initialiser_optional),
                         PLACE(initialiser_owned),
                         PLACE(assignment),
                         PLACE(assignment_to_member),
                         PLACE(return_value),
                         PLACE(return_class),
                         PLACE(return_result),
                         PLACE(literal_arguments),
                         PLACE(named_arguments),
                         PLACE(moved_arguments),
                         PLACE(temporary_arguments),
                         PLACE(called_arguments),
                         PLACE(option_arguments),
                         PLACE(member_of_local),
                         PLACE(member_of_temporary),
                         PLACE(member_through_pointer),
                         PLACE(in_if_and_else),
                         PLACE(in_while),
                         PLACE(in_for),
                         PLACE(in_range_for),
                         PLACE(in_do),
                         PLACE(in_switch),
                         PLACE(in_blocks),
                         PLACE(return_from_the_middle),
                         PLACE(plain_results),
                         PLACE(named_result),
                         PLACE(awaited_result),
                         PLACE(assigned_result),
                         PLACE(named_task),
                         PLACE(plain_lambda),
                         PLACE(named_lambda_that_makes_tasks),
                         PLACE(pieces),
                         PLACE(scopes),
                         PLACE(primitives)};
#undef PLACE

class CoAwaitPlacesTest : public ::testing::TestWithParam<Place> {};

// One run; gives whether the step `fail_at` was reached.
bool run_once(const Place& place, int fail_at, bool suspends) {
  SCOPED_TRACE(::testing::Message() << "step " << fail_at << " fails, "
                                    << (suspends ? "after a suspension" : "at once"));
  StepRun run(fail_at, suspends);
  {
    Executor::Entered entered(run);
    RootTask<int> root(place.make());
    run.run_to_end();
    CHECK(root.is_settled());
    Result<int> result = root.take_result();
    const bool was_to_fail = fail_at >= 0 && fail_at < run.steps();
    EXPECT_EQ(result.ok(), !was_to_fail);
    if (!result.ok()) {
      EXPECT_EQ(result.error().errno_value, EIO);
    }
  }
  EXPECT_EQ(run.alive(), 0u) << "leaked";
  EXPECT_EQ(run.wrong(), "");
  return fail_at < run.steps();
}

TEST_P(CoAwaitPlacesTest, EveryObjectDiesOnceWhicheverAwaitFails) {
  for (bool suspends : {false, true}) {
    EXPECT_TRUE(run_once(GetParam(), -1, suspends));
    int fail_at = 0;
    while (run_once(GetParam(), fail_at, suspends)) ++fail_at;
    EXPECT_GT(fail_at, 0) << "nothing was awaited";
    EXPECT_LT(fail_at, 20);
  }
}

INSTANTIATE_TEST_SUITE_P(Places, CoAwaitPlacesTest, ::testing::ValuesIn(kPlaces),
                         [](const auto& place) { return std::string(place.param.name); });

}  // namespace
}  // namespace ringdisk
