// SPDX-License-Identifier: Apache-2.0
// run_abandonable: a computation on the blocking pool that cannot be stopped once it runs (a key
// derivation), for a caller who may be told to wait no longer. He goes on at once with kCancelled;
// the computation goes on, too, and what comes of it is thrown away.
//
//   auto work = [mine = std::move(copy)](Blocking) -> Result<SecretBytes> { … };
//   SecretBytes key = co_await run_abandonable(world.blocking, stop, std::move(work));
//
// So `fn` owns all that it uses, or uses what outlives the pool. A process that ends then does not
// wait for it: see end_interrupted() in app/run_command_line.cc. Costs one allocation.
#pragma once

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "async/cancel.h"
#include "runtime/blocking_pool.h"

namespace ringdisk {
namespace blocking_internal {

template <class F>
class AbandonableWait;

// Owns itself from submit() on, until it is delivered.
template <class F>
class AbandonableCall final : public BlockingJob {
 public:
  using ResultType = std::invoke_result_t<F&, Blocking>;

  AbandonableCall(F fn, AbandonableWait<F>& waiting)
      : BlockingJob(Shard::current()), fn_(std::move(fn)), waiting_(&waiting) {}

  static AbandonableCall& submit(BlockingPool& pool, F fn, AbandonableWait<F>& waiting) {
    auto made = std::make_unique<AbandonableCall>(std::move(fn), waiting);
    AbandonableCall& call = *made;
    call.self_ = std::move(made);
    pool.submit(call);
    return call;
  }
  void abandon() { waiting_ = nullptr; }
  void deliver() override {
    const std::unique_ptr<AbandonableCall> self = std::move(self_);
    if (waiting_) waiting_->take(std::move(*result_));
  }

 private:
  void do_work(Blocking token) override {
    result_.emplace((*fn_)(token));
    fn_.reset();  // secrets go as soon as they have served
  }

  std::optional<F> fn_;
  std::optional<ResultType> result_;
  std::unique_ptr<AbandonableCall> self_;
  AbandonableWait<F>* waiting_;  // this shard only; null: nobody
};

// In the frame of who waits, on the shard of the token.
template <class F>
class AbandonableWait final : public CancelListener {
 public:
  using ResultType = typename AbandonableCall<F>::ResultType;

  AbandonableWait(BlockingPool& pool, CancelToken stop, F fn)
      : pool_(pool), stop_(stop), fn_(std::move(fn)) {}
  AbandonableWait(const AbandonableWait&) = delete;
  AbandonableWait& operator=(const AbandonableWait&) = delete;
  ~AbandonableWait() {
    if (call_) call_->abandon();
  }

  bool await_ready() const noexcept { return stop_.is_cancelled(); }
  template <RingdiskPromise P>
  void await_suspend(std::coroutine_handle<P> waiting) {
    waiter_.suspend(waiting);
    stop_.listen(*this);
    call_ = &AbandonableCall<F>::submit(pool_, std::move(fn_), *this);
  }
  ResultType await_resume() {
    if (result_) return std::move(*result_);
    return Error::of(ErrorKind::kCancelled, "compute");
  }

  void take(ResultType result) {
    call_ = nullptr;
    result_.emplace(std::move(result));
    unlink();
    waiter_.wake();
  }
  void on_cancel() override {
    call_->abandon();
    call_ = nullptr;
    waiter_.wake();
  }

 private:
  BlockingPool& pool_;
  const CancelToken stop_;
  F fn_;
  AbandonableCall<F>* call_ = nullptr;  // while it is neither delivered nor abandoned
  Waiter waiter_;
  std::optional<ResultType> result_;
};

}  // namespace blocking_internal

// Runs `fn(Blocking)`, which gives a Result<T>, on a thread of the pool. kCancelled, at once, where
// `stop`, a token of this shard, is cancelled before that.
template <class F>
auto run_abandonable(BlockingPool& pool, CancelToken stop, F fn)
    -> Task<typename std::invoke_result_t<F&, Blocking>::value_type> {
  blocking_internal::AbandonableWait<F> wait(pool, stop, std::move(fn));
  auto result = co_await wait;
  co_return std::move(result);
}

}  // namespace ringdisk
