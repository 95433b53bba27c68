// SPDX-License-Identifier: Apache-2.0
// The magic numbers go, one sector each.
#include "luks/invalidate.h"

#include <array>

#include "luks/luks1_header.h"
#include "luks/luks2_binary.h"

namespace ringdisk::luks {
namespace {

constexpr size_t kSectorBytes = 512;

uint64_t next_place(uint64_t at) { return at == 0 ? kLuks2HeaderBytesMin : at * 2; }

}  // namespace

Task<void> invalidate_header(const World& world, HeaderWindow window) {
  bool has_written = false;
  for (uint64_t at = 0; at <= kLuks2HeaderBytesMax; at = next_place(at)) {
    if (at + kSectorBytes > window.size().value()) break;
    std::array<std::byte, kSectorBytes> front = {};
    co_await window.read(world, HostOffset(at), front);
    if (!has_luks_magic(front)) continue;
    fill_zero(MutableBytes(front));
    co_await window.write(world, HostOffset(at), front);
    has_written = true;
  }
  if (has_written) co_await window.flush();
}

}  // namespace ringdisk::luks
