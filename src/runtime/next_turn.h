// SPDX-License-Identifier: Apache-2.0
// NextTurn: lets everything else of the shard go first, the loop's completions and messages of
// other shards included. Long work that never waits (copying megabytes in place) awaits it between
// pieces of about 100 us. Cost: one turn of the shard.
//
//   co_await NextTurn(shard);
#pragma once

#include "async/waiter.h"
#include "runtime/message.h"
#include "runtime/shard.h"

namespace ringdisk {

class NextTurn final : public Message {
 public:
  // `shard` is the calling one.
  explicit NextTurn(Shard& shard) : shard_(shard) {}
  void deliver() override { waiter_.wake(); }

  bool await_ready() const noexcept { return false; }
  template <RingdiskPromise P>
  void await_suspend(std::coroutine_handle<P> waiting) {
    waiter_.suspend(waiting);
    shard_.post(*this);
  }
  void await_resume() const noexcept {}

 private:
  Shard& shard_;
  Waiter waiter_;
};

}  // namespace ringdisk
