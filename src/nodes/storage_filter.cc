// SPDX-License-Identifier: Apache-2.0
// The names of operations, and the hooks around them.
#include "nodes/storage_filter.h"

#include <array>
#include <utility>

namespace ringdisk {
namespace {

constexpr std::array<std::string_view, kStorageOperations> kNames = {
    "read", "write", "write-zeroes", "discard", "flush", "find-extent", "resize", "allocate"};

std::optional<StorageOperations> operation_called(std::string_view name) {
  if (name == "all") return StorageOperations::all();
  for (unsigned i = 0; i < kStorageOperations; ++i) {
    if (name == kNames[i]) return StorageOperations(static_cast<StorageOperation>(i));
  }
  return std::nullopt;
}

}  // namespace

std::string_view name_of(StorageOperation operation) {
  return kNames[static_cast<unsigned>(operation)];
}

std::optional<StorageOperations> StorageOperations::parse(std::string_view text) {
  StorageOperations set;
  for (;;) {
    const size_t plus = text.find('+');
    std::optional<StorageOperations> one = operation_called(text.substr(0, plus));
    if (!one) return std::nullopt;
    set = set | *one;
    if (plus == std::string_view::npos) return set;
    text.remove_prefix(plus + 1);
  }
}

Task<void> HookedQueue::finish(StorageOperation operation, HostRange range, int from_before,
                               Result<void> done) {
  Result<void> hooked = co_await after(operation, range, from_before).result();
  co_await std::move(done);
  co_await std::move(hooked);
}

Task<void> HookedQueue::read(HostOffset offset, MutableBuffers target) {
  HostRange range(offset, ByteCount(target.size()));
  int from_before = co_await before(StorageOperation::kRead, range);
  Result<void> done = co_await child().read(offset, target).result();
  co_await finish(StorageOperation::kRead, range, from_before, std::move(done));
}

Task<void> HookedQueue::write(HostOffset offset, ConstBuffers source, WriteOptions options) {
  HostRange range(offset, ByteCount(source.size()));
  int from_before = co_await before(StorageOperation::kWrite, range);
  Result<void> done = co_await child().write(offset, source, options).result();
  co_await finish(StorageOperation::kWrite, range, from_before, std::move(done));
}

Task<void> HookedQueue::write_zeroes(HostRange range, ZeroOptions options) {
  int from_before = co_await before(StorageOperation::kWriteZeroes, range);
  Result<void> done = co_await child().write_zeroes(range, options).result();
  co_await finish(StorageOperation::kWriteZeroes, range, from_before, std::move(done));
}

Task<void> HookedQueue::discard(HostRange range) {
  int from_before = co_await before(StorageOperation::kDiscard, range);
  Result<void> done = co_await child().discard(range).result();
  co_await finish(StorageOperation::kDiscard, range, from_before, std::move(done));
}

Task<void> HookedQueue::flush() {
  HostRange range;
  int from_before = co_await before(StorageOperation::kFlush, range);
  Result<void> done = co_await child().flush().result();
  co_await finish(StorageOperation::kFlush, range, from_before, std::move(done));
}

Task<StorageExtent> HookedQueue::find_extent(HostRange range) {
  int from_before = co_await before(StorageOperation::kFindExtent, range);
  Result<StorageExtent> found = co_await child().find_extent(range).result();
  Result<void> hooked = co_await after(StorageOperation::kFindExtent, range, from_before).result();
  StorageExtent extent = co_await std::move(found);
  co_await std::move(hooked);
  co_return extent;
}

Task<void> HookedQueue::resize(ByteCount size) {
  HostRange range(HostOffset(size.value()), ByteCount(0));
  int from_before = co_await before(StorageOperation::kResize, range);
  Result<void> done = co_await child().resize(size).result();
  co_await finish(StorageOperation::kResize, range, from_before, std::move(done));
}

Task<void> HookedQueue::allocate(HostRange range) {
  int from_before = co_await before(StorageOperation::kAllocate, range);
  Result<void> done = co_await child().allocate(range).result();
  co_await finish(StorageOperation::kAllocate, range, from_before, std::move(done));
}

}  // namespace ringdisk
