// SPDX-License-Identifier: Apache-2.0
// Waiter: a suspended coroutine in somebody's list of waiting ones. It lives in the awaiter, so in
// the coroutine's own frame: waiting allocates nothing. WaitList wakes through the executor of the
// shard, never by resuming in place.
#pragma once

#include <coroutine>

#include "async/executor.h"
#include "async/promise.h"
#include "base/intrusive.h"

namespace ringdisk {

class Waiter : public ListLink {
 public:
  template <RingdiskPromise P>
  void suspend(std::coroutine_handle<P> waiting) {
    promise_ = &waiting.promise();
  }
  // The coroutine goes on in one of the next turns of this shard.
  void wake() {
    unlink();
    Executor::current().make_ready(*promise_);
  }

 private:
  PromiseBase* promise_ = nullptr;
};

class WaitList : public IntrusiveList<Waiter> {
 public:
  void wake_one() {
    if (!empty()) front().wake();
  }
  void wake_all() {
    while (!empty()) front().wake();
  }
};

}  // namespace ringdisk
