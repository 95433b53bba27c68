// SPDX-License-Identifier: Apache-2.0
// CHECK: what must hold whatever a file, a peer or a user does. A failed CHECK is a bug of ours: it
// prints the condition with the values of a comparison and ends the process, in release builds too.
// What can fail because of the outside world returns a Result (base/result.h) instead.
//
//   CHECK(queue != nullptr);
//   CHECK_LE(offset, size);          // prints both values
//   UNREACHABLE("a mapping has four kinds");
#pragma once

#include <cstdint>
#include <type_traits>

namespace ringdisk {

[[noreturn]] void check_failed(const char* file, int line, const char* condition);
[[noreturn]] void check_failed(const char* file, int line, const char* condition, uint64_t left,
                               uint64_t right);

namespace check_internal {
// The value as it is printed: every integer, enumeration, pointer-free unit type with value() as
// one 64-bit number.
template <class T>
constexpr uint64_t printable(const T& value) {
  if constexpr (std::is_enum_v<T> || std::is_integral_v<T>) {
    return static_cast<uint64_t>(value);
  } else {
    return static_cast<uint64_t>(value.value());
  }
}
}  // namespace check_internal

}  // namespace ringdisk

#define CHECK(condition)                                        \
  do {                                                          \
    if (!(condition)) [[unlikely]]                              \
      ::ringdisk::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)

// Copies: a reference into a temporary, such as CHECK_EQ(parse(text).value(), 3), would outlive it.
#define RINGDISK_CHECK_COMPARE(left, op, right)                                     \
  do {                                                                              \
    const auto check_left = (left);                                                 \
    const auto check_right = (right);                                               \
    if (!(check_left op check_right)) [[unlikely]]                                  \
      ::ringdisk::check_failed(__FILE__, __LINE__, #left " " #op " " #right,        \
                               ::ringdisk::check_internal::printable(check_left),   \
                               ::ringdisk::check_internal::printable(check_right)); \
  } while (false)

#define CHECK_EQ(left, right) RINGDISK_CHECK_COMPARE(left, ==, right)
#define CHECK_NE(left, right) RINGDISK_CHECK_COMPARE(left, !=, right)
#define CHECK_LT(left, right) RINGDISK_CHECK_COMPARE(left, <, right)
#define CHECK_LE(left, right) RINGDISK_CHECK_COMPARE(left, <=, right)
#define CHECK_GT(left, right) RINGDISK_CHECK_COMPARE(left, >, right)
#define CHECK_GE(left, right) RINGDISK_CHECK_COMPARE(left, >=, right)

#define UNREACHABLE(why) ::ringdisk::check_failed(__FILE__, __LINE__, why)
