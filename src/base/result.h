// SPDX-License-Identifier: Apache-2.0
// Result<T>: a value or an Error. [[nodiscard]], move-only where T is. In a coroutine `co_await
// result` unwraps the value or ends the coroutine with the error (async/task.h); in a plain
// function the two macros below do the same.
//
//   Result<Header> parse_header(Bytes bytes);
//   ASSIGN_OR_RETURN(Header header, parse_header(bytes));
//   RETURN_IF_ERROR(check_size(header));
#pragma once

#include <new>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace ringdisk {

// What a Result<void> holds when it is right.
struct Nothing {};

template <class T>
class [[nodiscard]] Result {
  using Value = std::conditional_t<std::is_void_v<T>, Nothing, T>;

 public:
  using value_type = T;

  Result()
    requires std::is_void_v<T>
      : value_(), ok_(true) {}

  template <class U = Value>
    requires(!std::is_void_v<T> && std::is_constructible_v<Value, U &&> &&
             !std::is_same_v<std::remove_cvref_t<U>, Error> &&
             !std::is_same_v<std::remove_cvref_t<U>, Result>)
  Result(U&& value) : value_(std::forward<U>(value)), ok_(true) {}

  Result(const Error& error) : error_(error), ok_(false) {}

  Result(Result&& other) noexcept : ok_(other.ok_) {
    if (ok_) {
      new (&value_) Value(std::move(other.value_));
    } else {
      new (&error_) Error(other.error_);
    }
  }
  Result& operator=(Result&& other) noexcept {
    if (this != &other) {
      this->~Result();
      new (this) Result(std::move(other));
    }
    return *this;
  }
  Result(const Result&) = delete;
  Result& operator=(const Result&) = delete;
  ~Result() {
    if (ok_) value_.~Value();
  }

  bool ok() const { return ok_; }

  // CHECKs that the Result holds a value.
  Value& value() & {
    CHECK(ok_);
    return value_;
  }
  const Value& value() const& {
    CHECK(ok_);
    return value_;
  }
  Value&& value() && {
    CHECK(ok_);
    return std::move(value_);
  }

  // CHECKs that the Result holds an error.
  const Error& error() const {
    CHECK(!ok_);
    return error_;
  }

 private:
  union {
    Value value_;
    Error error_;
  };
  bool ok_;
};

}  // namespace ringdisk

#define RINGDISK_CONCAT_INNER(a, b) a##b
#define RINGDISK_CONCAT(a, b) RINGDISK_CONCAT_INNER(a, b)

// Returns the error of `expression` from the enclosing plain function, or goes on.
#define RETURN_IF_ERROR(expression)         \
  do {                                      \
    auto returned_result = (expression);    \
    if (!returned_result.ok()) [[unlikely]] \
      return returned_result.error();       \
  } while (false)

// Declares or assigns `target` from the value of `expression`, or returns its error from the
// enclosing plain function.
#define ASSIGN_OR_RETURN(target, expression) \
  RINGDISK_ASSIGN_OR_RETURN(RINGDISK_CONCAT(result_at_, __LINE__), target, expression)
#define RINGDISK_ASSIGN_OR_RETURN(result, target, expression) \
  auto result = (expression);                                 \
  if (!result.ok()) [[unlikely]]                              \
    return result.error();                                    \
  target = std::move(result).value()
