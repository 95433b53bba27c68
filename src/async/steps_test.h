// SPDX-License-Identifier: Apache-2.0
// StepRun, step() and Tracked: for tests that let each await of a piece of code fail in turn and
// count the births and deaths of objects (co_await_places_test.cc).
//
//   StepRun run(2, true);                  // the third step fails, each one after a suspension
//   Executor::Entered entered(run);        // step() and Tracked belong to the current executor
#pragma once

#include <cerrno>
#include <set>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/executor.h"
#include "async/task.h"

namespace ringdisk {

// An executor that counts. One test's thread.
class StepRun final : public Executor {
 public:
  // The step number `fail_at` fails, counted from 0; -1: none.
  StepRun(int fail_at, bool suspends) : fail_at_(fail_at), suspends_(suspends) {}

  static StepRun& current() { return static_cast<StepRun&>(Executor::current()); }

  // Lets suspended steps go on, the latest first, until nothing waits.
  void run_to_end() {
    while (has_ready()) run_ready(256);
    while (!waiting_.empty()) {
      Event* latest = waiting_.back();
      waiting_.pop_back();
      latest->set();
      while (has_ready()) run_ready(256);
    }
  }

  int steps() const { return steps_; }
  size_t alive() const { return alive_.size(); }
  const std::string& wrong() const { return wrong_; }  // what went wrong with an object

  // For steps and objects.
  bool next_fails() { return steps_++ == fail_at_; }
  bool suspends() const { return suspends_; }
  void wait_for(Event& event) { waiting_.push_back(&event); }
  void born(const void* object) {
    if (!alive_.insert(object).second) wrong_ = "built twice in one place";
  }
  void died(const void* object) {
    if (alive_.erase(object) == 0) wrong_ = "destroyed twice, or never built";
  }
  void used(const void* object) {
    if (!alive_.contains(object)) wrong_ = "used while not alive";
  }

 private:
  const int fail_at_;
  const bool suspends_;
  int steps_ = 0;
  std::set<const void*> alive_;
  std::string wrong_;
  std::vector<Event*> waiting_;
};

// An object whose birth and death are counted. Not trivial in any way.
class Tracked {
 public:
  explicit Tracked(int number = 1) : number_(number) { StepRun::current().born(this); }
  Tracked(const Tracked& other) : number_(other.number()) { StepRun::current().born(this); }
  Tracked(Tracked&& other) noexcept : number_(other.number()) { StepRun::current().born(this); }
  Tracked& operator=(const Tracked& other) {
    number_ = other.number();
    StepRun::current().used(this);
    return *this;
  }
  ~Tracked() { StepRun::current().died(this); }

  int number() const {
    StepRun::current().used(this);
    return number_;
  }
  Task<int> number_after_step() const;

 private:
  int number_;
};

// One await that may be the one that fails.
inline Task<int> step(int value = 1) {
  Tracked local(9);
  StepRun& run = StepRun::current();
  const bool fails = run.next_fails();
  if (run.suspends()) {
    Event event;
    run.wait_for(event);
    co_await event.wait();
  }
  if (fails) co_await fail(Error::from_errno(EIO, "step"));
  co_return value;
}

inline Task<int> Tracked::number_after_step() const {
  int after = co_await step();
  co_return after + number();
}

}  // namespace ringdisk
