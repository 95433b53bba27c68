// SPDX-License-Identifier: Apache-2.0
// Views of memory. `Bytes` is read, `MutableBytes` written. A view owns nothing: who hands one to a
// Task keeps the memory until the Task is done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace ringdisk {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

inline Bytes as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
inline std::string_view as_text(Bytes bytes) {
  // why: char may alias any object, and the span bounds it
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// `source` and `target` have the same size and do not overlap.
inline void copy_bytes(Bytes source, MutableBytes target) {
  if (!source.empty()) std::memcpy(target.data(), source.data(), source.size());
}
inline void fill_zero(MutableBytes target) {
  if (!target.empty()) std::memset(target.data(), 0, target.size());
}

}  // namespace ringdisk
