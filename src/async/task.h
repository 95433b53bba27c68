// SPDX-License-Identifier: Apache-2.0
// Task<T>: a lazy coroutine that yields a Result<T>. It is immovable and awaited in the expression
// that makes it.
//
//   Task<uint32_t> read_header(StorageQueue& file) {
//     co_await file.read(HostOffset(0), buffer);           // an error ends read_header with it
//     Header header = co_await parse_header(bytes);        // the same for a plain Result
//     Result<void> done = co_await file.flush().result();  // the Result itself, to look at
//     co_return header.cluster_bits;                       // or `co_return error;`
//   }
//
// Where co_await may stand is restricted by g++ 12 (docs/decisions/0002-tasks.md); scripts/tidy
// enforces it. A task costs 5 to 8 ns against 1 ns for a call: what never suspends is a plain
// function that gives a Result. A reference passed to a Task must live until the Task is done; that
// holds by itself when it is awaited where it is made.
#pragma once

#include <concepts>
#include <new>
#include <type_traits>
#include <utility>

#include "async/promise.h"
#include "base/result.h"

namespace ringdisk {

template <class T>
class Promise;

template <class T>
class [[nodiscard]] Task {
 public:
  using promise_type = Promise<T>;
  using value_type = T;
  using Handle = std::coroutine_handle<Promise<T>>;

  // What a coroutine function gives first; becomes the Task in place, without a move.
  struct Made {
    Handle handle;
  };
  Task(Made made) : handle_(made.handle) {}
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task() { destroy(); }

  template <bool kPropagatesError>
  class Awaiter {
   public:
    explicit Awaiter(Task& task) : task_(task) {}
    bool await_ready() const noexcept { return false; }
    // Starts the task. True: stay suspended, because the task does, or because its error ends this
    // coroutine too.
    template <RingdiskPromise P>
    bool await_suspend(std::coroutine_handle<P> awaiting) const {
      PromiseBase& callee = task_.handle_.promise();
      callee.start();
      if (!callee.is_settled()) {
        callee.await_by(awaiting.promise(), kPropagatesError);
        return true;
      }
      if (kPropagatesError && callee.has_error()) [[unlikely]] {
        awaiting.promise().fail(callee.error());
        return true;
      }
      return false;
    }
    // The callee's frame is gone before the caller goes on.
    auto await_resume() const {
      Result<T> result = task_.take_result();
      task_.destroy();
      if constexpr (!kPropagatesError) {
        return result;
      } else if constexpr (!std::is_void_v<T>) {
        return T(std::move(result).value());
      }
    }

   private:
    Task& task_;
  };

  Awaiter<true> operator co_await() && { return Awaiter<true>(*this); }
  Awaiter<false> result() && { return Awaiter<false>(*this); }

  // For scopes and roots: the promise, which the taker destroys.
  Promise<T>& release() {
    CHECK(handle_);
    return std::exchange(handle_, nullptr).promise();
  }

 private:
  Result<T> take_result() { return handle_.promise().take_result(); }
  void destroy() {
    if (!handle_) return;
    Handle handle = std::exchange(handle_, nullptr);
    CHECK(!handle.promise().is_started() || handle.promise().is_settled());
    handle.promise().destroy();
  }

  Handle handle_;
};

// What Promise<T> and Promise<void> share.
template <class T>
class PromiseOf : public PromiseBase {
 public:
  typename Task<T>::Made get_return_object() {
    auto handle = Task<T>::Handle::from_promise(static_cast<Promise<T>&>(*this));
    set_handle(handle);
    return {handle};
  }
};

template <class T>
class Promise : public PromiseOf<T> {
 public:
  Promise() {}
  ~Promise() {
    if (this->is_started() && !this->has_error() && this->is_settled()) value_.~T();
  }

  template <class U>
    requires(std::is_constructible_v<T, U &&> && !std::is_same_v<std::remove_cvref_t<U>, Error> &&
             !std::is_same_v<std::remove_cvref_t<U>, Result<T>>)
  void return_value(U&& value) {
    new (&value_) T(std::forward<U>(value));
    this->set_has_value();
  }
  void return_value(Result<T>&& result) {
    if (result.ok()) {
      return_value(std::move(result).value());
    } else {
      this->fail(result.error());
    }
  }
  void return_value(const Error& error) { this->fail(error); }

  Result<T> take_result() {
    if (this->has_error()) return this->error();
    return Result<T>(std::move(value_));
  }

 private:
  union {
    T value_;
  };
};

template <>
class Promise<void> : public PromiseOf<void> {
 public:
  void return_void() { set_has_value(); }
  Result<void> take_result() {
    if (has_error()) return error();
    return {};
  }
};

// `co_await result`: the value, or the end of the awaiting coroutine with the error.
template <class T>
class ResultAwaiter {
 public:
  explicit ResultAwaiter(Result<T>& result) : result_(result) {}
  bool await_ready() const { return result_.ok(); }
  template <RingdiskPromise P>
  void await_suspend(std::coroutine_handle<P> awaiting) const {
    awaiting.promise().fail(result_.error());
  }
  T await_resume() const {
    if constexpr (!std::is_void_v<T>) return std::move(result_).value();
  }

 private:
  Result<T>& result_;
};

template <class T>
ResultAwaiter<T> operator co_await(Result<T>&& result) {
  return ResultAwaiter<T>(result);
}

// `co_await fail(error)` ends a Task<void>, which cannot `co_return error`.
inline Result<void> fail(const Error& error) { return error; }

}  // namespace ringdisk
