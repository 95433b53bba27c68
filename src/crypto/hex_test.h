// SPDX-License-Identifier: Apache-2.0
// For tests: bytes as the hexadecimal digits in which vectors are published.
#pragma once

#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"

namespace ringdisk {

inline std::vector<std::byte> from_hex(std::string_view digits) {
  CHECK_EQ(digits.size() % 2, size_t{0});
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < digits.size(); i += 2) {
    unsigned value = 0;
    const auto parsed = std::from_chars(digits.data() + i, digits.data() + i + 2, value, 16);
    CHECK(parsed.ec == std::errc() && parsed.ptr == digits.data() + i + 2);
    bytes.push_back(static_cast<std::byte>(value));
  }
  return bytes;
}

inline std::string to_hex(Bytes bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (std::byte one : bytes) {
    text += kDigits[static_cast<size_t>(one) >> 4];
    text += kDigits[static_cast<size_t>(one) & 15];
  }
  return text;
}

}  // namespace ringdisk
