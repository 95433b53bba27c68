// SPDX-License-Identifier: Apache-2.0
// TestExecutor: an executor that belongs to no shard, current as long as it lives, for tests of
// async/. Nothing here waits for a machine: what cannot go on any more is a failure of the test.
//
//   TestExecutor executor;
//   Result<int> got = executor.run(&make);      // Task<int> make()
#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include "async/executor.h"
#include "async/scope.h"
#include "async/task.h"
#include "base/check.h"

namespace ringdisk {

class TestExecutor {
 public:
  TestExecutor() = default;
  explicit TestExecutor(uint64_t shuffle_seed) { executor_.shuffle(shuffle_seed); }

  Executor& executor() { return executor_; }
  FramePool& frames() { return executor_.frames(); }

  void run_ready() {
    while (executor_.has_ready()) executor_.run_ready(256);
  }
  // Runs the task that `make` gives to its end.
  template <class F>
  auto run(F make) -> Result<typename std::invoke_result_t<F&>::value_type> {
    RootTask<typename std::invoke_result_t<F&>::value_type> root(make());
    run_ready();
    CHECK(root.is_settled());
    return root.take_result();
  }

 private:
  Executor executor_;
  Executor::Entered entered_{executor_};
};

// Adds its name to a log when it dies.
class LastWords {
 public:
  LastWords(std::string& log, char name) : log_(log), name_(name) {}
  LastWords(const LastWords&) = delete;
  LastWords& operator=(const LastWords&) = delete;
  ~LastWords() { log_ += name_; }

 private:
  std::string& log_;
  char name_;
};

}  // namespace ringdisk
