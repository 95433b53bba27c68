// SPDX-License-Identifier: Apache-2.0
// Structured concurrency. A Scope owns children; nothing travels on, neither a value nor an error,
// before all of them are done. The first error, of a child or of the body, cancels the scope's
// token.
//
//   Task<void> copy_all(Scope& scope, Copier& copier) {
//     for (…) scope.spawn(copier.copy_one(…));          // starts now; runs on beside us
//     co_await copier.report_progress(scope.token());
//   }
//   co_await with_scope(&copy_all, copier);             // joins before it yields
//
// A child takes values or references that outlive the with_scope. `when_all(n, f)` is the short
// form for pieces of one request. One shard only: children run on the shard that spawned them.
#pragma once

#include <type_traits>
#include <utility>

#include "async/cancel.h"
#include "async/task.h"

namespace ringdisk {

class Scope {
 public:
  explicit Scope(PromiseBase& owner) : owner_(owner), outer_(owner.scopes_) {
    owner.scopes_ = this;
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope() {
    CHECK_EQ(running_, uint32_t{0});
    owner_.scopes_ = outer_;
  }

  template <class T>
  void spawn(Task<T>&& task) {
    adopt(task.release());
  }

  void cancel() { cancel_.cancel(); }
  CancelToken token() { return cancel_.token(); }
  uint32_t running() const { return running_; }

  // Waits for all children; gives the first error among them.
  class Join {
   public:
    explicit Join(Scope& scope) : scope_(scope) {}
    bool await_ready() const { return scope_.running_ == 0; }
    template <RingdiskPromise P>
    void await_suspend(std::coroutine_handle<P>) const {
      scope_.waiting_ = true;
    }
    Result<void> await_resume() const {
      if (scope_.failed_) return scope_.error_;
      return {};
    }

   private:
    Scope& scope_;
  };
  Join join() { return Join(*this); }

 private:
  friend class PromiseBase;

  void adopt(PromiseBase& child);
  static PromiseBase* on_child_settled(PromiseBase& child, void* scope);

  PromiseBase& owner_;
  Scope* outer_;
  CancelSource cancel_;
  Error error_;
  uint32_t running_ = 0;
  bool waiting_ = false;
  bool failed_ = false;
};

// Gives a coroutine its own promise.
class SelfAwaiter {
 public:
  bool await_ready() const noexcept { return false; }
  template <RingdiskPromise P>
  bool await_suspend(std::coroutine_handle<P> self) {
    promise_ = &self.promise();
    return false;
  }
  PromiseBase& await_resume() const noexcept { return *promise_; }

 private:
  PromiseBase* promise_ = nullptr;
};

// Runs `body(scope, args…)`, joins all children, then yields the body's value, or the body's error,
// or the first child's. Arguments are held by reference: they outlive the expression in which
// with_scope is awaited.
template <class F, class... Args>
auto with_scope(F body, Args&... args) -> std::invoke_result_t<F, Scope&, Args&...> {
  PromiseBase& self = co_await SelfAwaiter();
  Scope scope(self);
  auto outcome = co_await body(scope, args...).result();
  if (!outcome.ok()) scope.cancel();
  Result<void> joined = co_await scope.join();
  // Who was merely cancelled is not the cause.
  bool body_is_cause = !outcome.ok() && outcome.error().kind != ErrorKind::kCancelled;
  if (!body_is_cause) co_await std::move(joined);
  if constexpr (std::is_void_v<typename decltype(outcome)::value_type>) {
    co_await std::move(outcome);
  } else {
    co_return std::move(outcome);
  }
}

// Runs f(0) … f(count - 1), each giving a Task<void>, side by side on this shard. All are always
// awaited; the first error is the result. `f` is called before the first suspension only.
template <class F>
class WhenAll {
 public:
  WhenAll(size_t count, F make) : count_(count), make_(std::move(make)) {}
  bool await_ready() const noexcept { return count_ == 0; }
  template <RingdiskPromise P>
  bool await_suspend(std::coroutine_handle<P> awaiting) {
    owner_ = &awaiting.promise();
    running_ = 1;  // so that children that end at once do not end the whole
    for (size_t i = 0; i < count_; ++i) {
      PromiseBase& child = make_(i).release();
      child.set_on_settled(&on_child_settled, this);
      ++running_;
      child.start();
      if (child.is_settled()) on_child_settled(child, this);
    }
    if (--running_ != 0) return true;
    if (failed_) owner_->fail(error_);
    return failed_;
  }
  void await_resume() const noexcept {}

 private:
  static PromiseBase* on_child_settled(PromiseBase& child, void* owner) {
    auto& all = *static_cast<WhenAll*>(owner);
    if (child.has_error() && !all.failed_) {
      all.failed_ = true;
      all.error_ = child.error();
    }
    child.destroy();
    if (--all.running_ != 0) return nullptr;
    PromiseBase& owner_of_all = *all.owner_;
    if (all.failed_) {
      owner_of_all.fail(all.error_);
      if (!owner_of_all.is_settled()) return nullptr;  // children of its scopes still run
    }
    return &owner_of_all;
  }

  size_t count_;
  F make_;
  PromiseBase* owner_ = nullptr;
  size_t running_ = 0;
  Error error_;
  bool failed_ = false;
};

template <class F>
WhenAll<F> when_all(size_t count, F make) {
  return WhenAll<F>(count, std::move(make));
}

// Starts `task` as the root of a tree of coroutines on the current executor and keeps it until it
// has settled. For shards, tests and main(); everything else awaits or spawns.
template <class T>
class RootTask {
 public:
  explicit RootTask(Task<T>&& task) : promise_(task.release()) { promise_.start(); }
  RootTask(const RootTask&) = delete;
  RootTask& operator=(const RootTask&) = delete;
  ~RootTask() {
    CHECK(promise_.is_settled());
    promise_.destroy();
  }
  bool is_settled() const { return promise_.is_settled(); }
  Result<T> take_result() { return promise_.take_result(); }

 private:
  Promise<T>& promise_;
};

}  // namespace ringdisk
