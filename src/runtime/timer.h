// SPDX-License-Identifier: Apache-2.0
// TimerQueue: the sleeping coroutines of one shard, ordered by when they wake. A binary heap of
// pointers into the awaiters; a sleeper that is cancelled leaves the heap at once.
//
//   Result<void> slept = co_await shard.sleep(std::chrono::seconds(20), token);
//   // an error: kCancelled
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "async/cancel.h"
#include "async/waiter.h"
#include "base/result.h"
#include "runtime/clock.h"

namespace ringdisk {

class Sleep;

class TimerQueue {
 public:
  // Wakes everyone whose time has come; gives how many.
  uint32_t fire(Instant now);
  std::optional<Instant> next() const;

 private:
  friend class Sleep;
  void add(Sleep& sleeper);
  void remove(Sleep& sleeper);
  void sift_up(size_t at);
  void sift_down(size_t at);
  void place(size_t at, Sleep& sleeper);

  std::vector<Sleep*> heap_;  // heap_[0] wakes first
};

class Sleep final : public Waiter, public CancelListener {
 public:
  Sleep(TimerQueue& timers, Instant until, CancelToken token)
      : timers_(timers), until_(until), token_(token) {}
  bool await_ready() const { return token_.is_cancelled(); }
  template <RingdiskPromise P>
  void await_suspend(std::coroutine_handle<P> waiting) {
    suspend(waiting);
    timers_.add(*this);
    token_.listen(*this);
  }
  Result<void> await_resume() const {
    if (token_.is_cancelled()) return Error::of(ErrorKind::kCancelled, "sleep");
    return {};
  }
  void on_cancel() override {
    if (position_ == kNotQueued) return;
    timers_.remove(*this);
    wake();
  }

 private:
  friend class TimerQueue;
  static constexpr size_t kNotQueued = ~size_t{0};
  TimerQueue& timers_;
  Instant until_;
  CancelToken token_;
  size_t position_ = kNotQueued;
};

}  // namespace ringdisk
