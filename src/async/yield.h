// SPDX-License-Identifier: Apache-2.0
// Yield: lets everybody who is ready on this shard go first. For loops that could go on for ever
// without suspending.
//
//   co_await Yield();
#pragma once

#include "async/executor.h"
#include "async/promise.h"

namespace ringdisk {

class Yield {
 public:
  bool await_ready() const noexcept { return false; }
  template <RingdiskPromise P>
  void await_suspend(std::coroutine_handle<P> self) const {
    Executor::current().make_ready(self.promise());
  }
  void await_resume() const noexcept {}
};

}  // namespace ringdisk
