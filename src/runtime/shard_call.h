// SPDX-License-Identifier: Apache-2.0
// The body of Shard::call. Included by runtime/shard.h alone, at its end: it is not for others.
//
//   caller's shard                           target's shard
//   call(): CrossCall in the frame ──post──> deliver(): starts fn() as a root task (frames of the
//                                            target's pool)
//   suspended                                ... settles: result into the CrossCall, the task is
//                                            destroyed here
//   deliver(): resumed <───────────post───── reply
#pragma once

#include <optional>
#include <utility>

namespace ringdisk {

template <class T>
struct IsTask : std::false_type {};
template <class T>
struct IsTask<Task<T>> : std::true_type {};

namespace shard_internal {

// What `fn` gives, a Task or a plain Result, as a task, so that a call has one shape.
template <class F, class T = typename std::invoke_result_t<F&>::value_type>
Task<T> as_task(F& fn) {
  if constexpr (std::is_void_v<T>) {
    co_await fn();
  } else if constexpr (IsTask<std::invoke_result_t<F&>>::value) {
    co_return co_await fn().result();
  } else {
    co_return fn();
  }
}

template <class F>
class CrossCall {
 public:
  using T = typename std::invoke_result_t<F&>::value_type;

  CrossCall(Shard& caller, Shard& target, F& fn)
      : request_(*this), reply_(*this), caller_(caller), target_(target), fn_(fn) {}

  bool await_ready() const noexcept { return false; }
  template <RingdiskPromise P>
  void await_suspend(std::coroutine_handle<P> waiting) {
    waiter_.suspend(waiting);
    target_.post(request_);
  }
  Result<T> await_resume() { return std::move(*result_); }

 private:
  class Request final : public Message {
   public:
    explicit Request(CrossCall& call) : call_(call) {}
    void deliver() override { call_.run_on_target(); }

   private:
    CrossCall& call_;
  };
  class Reply final : public Message {
   public:
    explicit Reply(CrossCall& call) : call_(call) {}
    void deliver() override { call_.waiter_.wake(); }

   private:
    CrossCall& call_;
  };

  void run_on_target() {
    Task<T> task = as_task(fn_);
    Promise<T>& promise = task.release();
    promise.set_on_settled(&on_settled, this);
    promise.start();
    if (promise.is_settled()) on_settled(promise, this);
  }
  static PromiseBase* on_settled(PromiseBase& settled, void* owner) {
    auto& call = *static_cast<CrossCall*>(owner);
    call.result_.emplace(static_cast<Promise<T>&>(settled).take_result());
    settled.destroy();
    call.caller_.post(call.reply_);
    return nullptr;
  }

  Request request_;
  Reply reply_;
  Waiter waiter_;
  Shard& caller_;
  Shard& target_;
  F& fn_;
  std::optional<Result<T>> result_;
};

}  // namespace shard_internal

template <class F>
auto Shard::call(F fn) -> Task<typename std::invoke_result_t<F&>::value_type> {
  using T = typename std::invoke_result_t<F&>::value_type;
  if (is_current()) {
    Task<T> task = shard_internal::as_task(fn);
    if constexpr (std::is_void_v<T>) {
      co_await std::move(task);
    } else {
      co_return co_await std::move(task).result();
    }
  } else {
    shard_internal::CrossCall<F> call(Shard::current(), *this, fn);
    Result<T> result = co_await call;
    if constexpr (std::is_void_v<T>) {
      co_await std::move(result);
    } else {
      co_return std::move(result);
    }
  }
}

}  // namespace ringdisk
