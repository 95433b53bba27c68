// SPDX-License-Identifier: Apache-2.0
// Text in fields of a fixed size, ended by a zero byte where it is shorter.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"

namespace ringdisk::luks {

inline std::string text_field(Bytes field) {
  const auto end = std::find(field.begin(), field.end(), std::byte{0});
  return std::string(as_text(field.first(static_cast<size_t>(end - field.begin()))));
}

// `text` fits; the rest becomes zeros.
inline void put_text_field(std::string_view text, MutableBytes field) {
  CHECK_LE(text.size(), field.size());
  fill_zero(field);
  copy_bytes(as_bytes(text), field.first(text.size()));
}

}  // namespace ringdisk::luks
