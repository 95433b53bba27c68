// SPDX-License-Identifier: Apache-2.0
// PromiseBase: what every coroutine of ringdisk carries, and how the end of one reaches the next.
//
// A coroutine *settles* with a value or an error. Then `resume` (the trampoline) walks on, in a
// loop:
//   - awaited by `co_await task.result()`: the awaiting coroutine is resumed, looks at the Result
//   - awaited by `co_await task`, value: the awaiting coroutine is resumed
//   - awaited by `co_await task`, error: the awaiting coroutine is NOT resumed: it takes the error
//     over and settles itself (early exit); its frame is destroyed by whoever looks at the Result,
//     innermost locals first. Open scopes are cancelled, and it settles only when their children
//     have.
//   - a root or a scope's child: `on_settled_` is called
//
// This header is the machinery of async/ alone; others include async/task.h.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>

#include "async/executor.h"
#include "base/check.h"
#include "base/error.h"

namespace ringdisk {

class Scope;

class PromiseBase {
 public:
  // Called when a root or a scope's child settles; gives the coroutine to go on with (one to
  // resume, or one that has settled by this and whose end travels on), or null. May destroy the one
  // that settled.
  using OnSettled = PromiseBase* (*)(PromiseBase&, void* owner);

  PromiseBase(const PromiseBase&) = delete;
  PromiseBase& operator=(const PromiseBase&) = delete;

  // Frames come from the shard's pool.
  static void* operator new(size_t bytes) { return Executor::current().frames().allocate(bytes); }
  static void operator delete(void* frame, size_t bytes) {
    Executor::current().frames().free(frame, bytes);
  }

  // Lazy: the body starts when the task is awaited, spawned or made a root.
  std::suspend_always initial_suspend() const noexcept { return {}; }
  std::suspend_always final_suspend() const noexcept { return {}; }
  void unhandled_exception() noexcept { UNREACHABLE("exceptions do not cross our interfaces"); }

  bool is_started() const { return started_; }
  bool is_settled() const { return state_ != State::kRunning && !joining_; }
  bool has_error() const { return state_ == State::kError; }
  const Error& error() const { return error_; }

  // Runs the body up to its first suspension. The caller then asks is_settled().
  void start() {
    started_ = true;
    handle_.resume();
  }
  // Ends this coroutine with `error` without resuming it. It settles now, or when its scopes'
  // children have.
  void fail(const Error& error);

  void await_by(PromiseBase& awaiting, bool propagates_error) {
    awaiting_ = &awaiting;
    propagates_error_ = propagates_error;
  }
  void set_on_settled(OnSettled on_settled, void* owner) {
    on_settled_ = on_settled;
    owner_ = owner;
  }
  // Never inlined. Where clang 16 sees the end of a coroutine in its caller it builds the callee's
  // frame into the caller's, and then goes wrong: at -O2 a caller of app/convert.cc was never
  // resumed, with -O0 or with frames of their own it is.
  [[gnu::noinline]] void destroy();

  // The trampoline: resumes `coroutine` and, as long as coroutines settle, those who wait for them.
  static void resume(PromiseBase& coroutine);

 protected:
  enum class State : uint8_t { kRunning, kValue, kError };

  PromiseBase() = default;
  ~PromiseBase() = default;
  void set_handle(std::coroutine_handle<> handle) { handle_ = handle; }
  void set_has_value() { state_ = State::kValue; }

 private:
  friend class Scope;
  static PromiseBase* next_after(PromiseBase& settled);

  // the coroutine's own shard only
  std::coroutine_handle<> handle_;
  PromiseBase* awaiting_ = nullptr;
  OnSettled on_settled_ = nullptr;
  void* owner_ = nullptr;
  Scope* scopes_ = nullptr;  // open scopes of this frame, the innermost first
  Error error_;
  State state_ = State::kRunning;
  bool propagates_error_ = false;
  bool joining_ = false;  // failed, but children of its scopes still run
  bool started_ = false;
};

template <class P>
concept RingdiskPromise = std::is_base_of_v<PromiseBase, P>;

}  // namespace ringdisk
