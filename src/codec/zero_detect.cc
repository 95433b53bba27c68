// SPDX-License-Identifier: Apache-2.0
// Memory is all zero when its first 16 bytes are and every byte equals the one 16 bytes before it;
// memcmp of the memory with itself, shifted, asks just that, with the widest instructions the C
// library has for this machine.
#include "codec/zero_detect.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/endian.h"

namespace ringdisk {

bool is_zero(Bytes bytes) {
  constexpr size_t kHead = 16;
  if (bytes.size() < kHead) {
    return std::all_of(bytes.begin(), bytes.end(),
                       [](std::byte byte) { return byte == std::byte{0}; });
  }
  if ((load_le64(bytes.data()) | load_le64(bytes.data() + 8)) != 0) return false;
  return std::memcmp(bytes.data(), bytes.data() + kHead, bytes.size() - kHead) == 0;
}

ZeroRun find_zero_run(Bytes bytes, size_t granule) {
  CHECK(!bytes.empty());
  CHECK_GT(granule, size_t{0});
  const bool zero = is_zero(bytes.first(std::min(granule, bytes.size())));
  size_t length = std::min(granule, bytes.size());
  while (length < bytes.size()) {
    Bytes next = bytes.subspan(length, std::min(granule, bytes.size() - length));
    if (is_zero(next) != zero) break;
    length += next.size();
  }
  return {length, zero};
}

}  // namespace ringdisk
