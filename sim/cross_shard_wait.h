// SPDX-License-Identifier: Apache-2.0
// Signal: a coroutine of one shard waits for something that code on another shard makes true. The
// waker posts a message to the shard that waits, so the order of wake-ups is drawn like that of all
// messages. In the simulator only: everything runs on one thread, so the list needs no lock.
//
//   while (!there_is_something()) {
//     CrossShardWait wait(signal, token);
// co_await wait;                        // then look again: a signal is a hint, and so is a
// cancellation
//   }
#pragma once

#include <algorithm>
#include <vector>

#include "async/cancel.h"
#include "async/waiter.h"
#include "runtime/message.h"
#include "runtime/shard.h"

namespace ringdisk::sim {

class CrossShardWait;

class Signal {
 public:
  Signal() = default;
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;
  ~Signal() { CHECK(waiting_.empty()); }
  // From any shard: everyone who waits now goes on.
  void notify_all();

 private:
  friend class CrossShardWait;
  std::vector<CrossShardWait*> waiting_;
};

class CrossShardWait final : public Waiter, public Message, public CancelListener {
 public:
  explicit CrossShardWait(Signal& signal, CancelToken token = {})
      : signal_(signal), token_(token), shard_(Shard::current()) {}

  bool await_ready() const { return token_.is_cancelled(); }
  template <RingdiskPromise P>
  void await_suspend(std::coroutine_handle<P> waiting) {
    suspend(waiting);
    signal_.waiting_.push_back(this);
    token_.listen(*this);
  }
  void await_resume() const {}

  void deliver() override { wake(); }
  void on_cancel() override {
    auto found = std::find(signal_.waiting_.begin(), signal_.waiting_.end(), this);
    if (found == signal_.waiting_.end()) return;  // the message is on its way
    signal_.waiting_.erase(found);
    wake();
  }

 private:
  friend class Signal;
  Signal& signal_;
  CancelToken token_;
  Shard& shard_;
};

inline void Signal::notify_all() {
  std::vector<CrossShardWait*> woken;
  woken.swap(waiting_);
  for (CrossShardWait* wait : woken) wait->shard_.post(*wait);
}

}  // namespace ringdisk::sim
