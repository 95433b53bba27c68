// SPDX-License-Identifier: Apache-2.0
// Event: a latch that coroutines of one shard wait for. set() lets all waiting and all later ones
// pass, until reset().
//
//   co_await event.wait();                                     // until set
//   Result<void> set = co_await event.wait_or_cancel(token);   // or until cancelled: then an
//   error, kCancelled
#pragma once

#include "async/cancel.h"
#include "async/waiter.h"
#include "base/result.h"

namespace ringdisk {

class Event {
 public:
  bool is_set() const { return set_; }
  void set() {
    set_ = true;
    waiting_.wake_all();
  }
  void reset() { set_ = false; }

  class Wait final : public Waiter {
   public:
    explicit Wait(Event& event) : event_(event) {}
    bool await_ready() const { return event_.set_; }
    template <RingdiskPromise P>
    void await_suspend(std::coroutine_handle<P> waiting) {
      suspend(waiting);
      event_.waiting_.push_back(*this);
    }
    void await_resume() const {}

   private:
    Event& event_;
  };
  Wait wait() { return Wait(*this); }

  class WaitOrCancel final : public Waiter, public CancelListener {
   public:
    WaitOrCancel(Event& event, CancelToken token) : event_(event), token_(token) {}
    bool await_ready() const { return event_.set_ || token_.is_cancelled(); }
    template <RingdiskPromise P>
    void await_suspend(std::coroutine_handle<P> waiting) {
      suspend(waiting);
      event_.waiting_.push_back(*this);
      token_.listen(*this);
    }
    Result<void> await_resume() const {
      if (event_.set_ || !token_.is_cancelled()) return {};
      return Error::of(ErrorKind::kCancelled, "wait");
    }
    void on_cancel() override {
      if (Waiter::is_linked()) wake();
    }

   private:
    Event& event_;
    CancelToken token_;
  };
  WaitOrCancel wait_or_cancel(CancelToken token) { return WaitOrCancel(*this, token); }

 private:
  WaitList waiting_;
  bool set_ = false;
};

}  // namespace ringdisk
