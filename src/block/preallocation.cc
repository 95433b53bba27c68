// SPDX-License-Identifier: Apache-2.0
// Zeros are written in pieces of one buffer.
#include "block/preallocation.h"

#include <algorithm>

#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr uint64_t kPieceBytes = 1 * limits::kMiB;

Task<void> write_zeros(StorageAccess& storage, HostRange range) {
  Buffer buffer = Shard::current().buffers().take(kPieceBytes);
  const MutableBytes zeros = buffer.first(kPieceBytes);
  fill_zero(zeros);
  for (uint64_t done = 0; done < range.length.value(); done += kPieceBytes) {
    const uint64_t length = std::min(kPieceBytes, range.length.value() - done);
    const ConstBuffers source(Bytes(zeros.first(length)));
    co_await storage.write(range.offset + ByteCount(done), source);
  }
}

}  // namespace

std::optional<Preallocation> parse_preallocation(std::string_view text) {
  if (text == "off") return Preallocation::kOff;
  if (text == "metadata") return Preallocation::kMetadata;
  if (text == "falloc") return Preallocation::kFalloc;
  if (text == "full") return Preallocation::kFull;
  return std::nullopt;
}

Task<void> take_space(StorageAccess& storage, HostRange range, Preallocation how) {
  if (range.empty()) co_return;
  if (how == Preallocation::kFalloc) co_await storage.allocate(range);
  if (how == Preallocation::kFull) co_await write_zeros(storage, range);
}

}  // namespace ringdisk
