// SPDX-License-Identifier: Apache-2.0
// Requests to a simulated disk.
#include "sim/sim_storage_queue.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "runtime/shard.h"
#include "sim/crash_replay.h"

namespace ringdisk::sim {

SimStorageQueue::SimStorageQueue(SimStorageNode& node, Shard& shard) : node_(node), shard_(shard) {
  ++node_.queues_;
}

SimStorageQueue::~SimStorageQueue() {
  CHECK(shard_.is_current());
  CHECK_EQ(under_way_, uint64_t{0});
  --node_.queues_;
}

bool SimStorageQueue::fails(SimOperation operation) {
  CHECK(shard_.is_current());
  return disk().faults_ && disk().faults_->next_fails(operation);
}

Result<void> SimStorageQueue::failure(const char* operation, uint64_t offset) {
  if (disk().faults_->is_silent) return {};
  return at_node(Error::from_errno(disk().faults_->errno_value, operation, offset), node_.id());
}

Task<void> SimStorageQueue::delay() {
  auto longest = static_cast<uint64_t>(disk().options_.delay_max.count());
  if (longest == 0 || disk().random_.chance(30)) co_return;
  Duration length(static_cast<int64_t>(disk().random_.below(longest)));
  ++under_way_;
  (void)co_await shard_.sleep(length);
  --under_way_;
}

// What block/storage.h promises a driver.
void SimStorageQueue::check_range(HostRange range, bool changes) const {
  const StorageLimits& limits = node_.limits();
  CHECK(!range.empty());
  CHECK(range.is_aligned(limits.block_size));
  CHECK(!changes || !limits.read_only);
  if (changes && limits.grows) return;
  // The last block may be cut by the end (a file of an odd size).
  CHECK_LE(range.end(), HostOffset(node_.size().value()).align_up(limits.block_size));
}

template <class Buffers>
void SimStorageQueue::check_memory(const Buffers& buffers) const {
  CHECK_LE(buffers.size(), limits::kRequestBytesMax);
  CHECK(buffers.is_memory_aligned(node_.limits().memory_alignment));
}

Task<void> SimStorageQueue::read(HostOffset offset, MutableBuffers target) {
  check_range(HostRange(offset, ByteCount(target.size())), false);
  check_memory(target);
  bool failing = fails(SimOperation::kRead);
  co_await delay();
  if (failing) co_await failure("read", offset.value());
  uint64_t at = offset.value();
  target.for_each([this, &at](MutableBytes piece) {
    disk().state_.content.read(at, piece);
    at += piece.size();
  });
  co_await delay();
}

Task<void> SimStorageQueue::write(HostOffset offset, ConstBuffers source, WriteOptions options) {
  check_range(HostRange(offset, ByteCount(source.size())), true);
  check_memory(source);
  Change change;
  change.kind = ChangeKind::kWrite;
  change.fua = options.fua;
  change.offset = offset.value();
  change.length = source.size();
  change.bytes.resize(source.size());
  copy_from_buffers(source, change.bytes);
  co_await perform(std::move(change), SimOperation::kWrite, "write");
}

Task<void> SimStorageQueue::write_zeroes(HostRange range, ZeroOptions options) {
  check_range(range, true);
  if (options.fast_only && !node_.limits().fast_zero) {
    co_await fail(at_node(Error::of(ErrorKind::kUnsupported, "write zeroes"), node_.id()));
  }
  Change change;
  change.kind = ChangeKind::kZero;
  change.fua = options.fua;
  change.offset = range.offset.value();
  change.length = range.length.value();
  co_await perform(std::move(change), SimOperation::kWriteZeroes, "write zeroes");
}

// A drawn part of the range, in whole blocks, becomes zeros.
Task<void> SimStorageQueue::discard(HostRange range) {
  check_range(range, true);
  CHECK_LE(range.end().value(), node_.size().value());
  uint64_t block = std::max<uint64_t>(node_.limits().block_size, kSectorBytes);
  uint64_t first = range.offset.align_up(block).value() / block;
  uint64_t end = range.end().align_down(block).value() / block;
  bool failing = fails(SimOperation::kDiscard);
  co_await delay();
  if (failing) {
    co_await failure("discard", range.offset.value());
    co_return;
  }
  if (first >= end || !node_.limits().unmaps || disk().random_.chance(20)) co_return;
  if (disk().random_.chance(30)) first += disk().random_.below(end - first);
  if (disk().random_.chance(30)) end = first + 1 + disk().random_.below(end - first);
  Change change;
  change.kind = ChangeKind::kZero;
  change.offset = first * block;
  change.length = (end - first) * block;
  uint64_t number = 0;
  change.disk = disk().log_number_;
  if (disk().log_) number = disk().log_->change_submitted(change);
  apply(change, number);
  if (disk().log_) disk().log_->change_completed(number);
  co_await delay();
}

Result<void> SimStorageQueue::check_space(const Change& change) {
  if (change.kind != ChangeKind::kWrite) return {};
  // Counted as if all of it were new: full a little early, never late.
  if (disk().written_bytes() + change.length <= disk().options_.space_bytes_max) return {};
  return at_node(Error::from_errno(ENOSPC, "write", change.offset), node_.id());
}

Task<void> SimStorageQueue::perform(Change change, SimOperation operation, const char* name) {
  change.disk = disk().log_number_;
  bool failing = fails(operation);
  co_await check_space(change);
  uint64_t number = disk().log_ ? disk().log_->change_submitted(change) : 0;
  co_await delay();
  if (failing) {
    uint64_t offset = change.offset;
    fail_change(std::move(change), number);
    co_await failure(name, offset);
    co_return;
  }
  apply(change, number);
  co_await delay();
  if (disk().log_) disk().log_->change_completed(number);
}

// A request that fails has happened in part: some of its front, or nothing.
void SimStorageQueue::fail_change(Change change, uint64_t number) {
  if (disk().log_) disk().log_->change_dropped(number);
  if (change.kind == ChangeKind::kResize || disk().random_.chance(50)) return;
  uint64_t block = std::max<uint64_t>(node_.limits().block_size, kSectorBytes);
  uint64_t end = (change.offset + disk().random_.below(change.length + 1)) / block * block;
  change.length = std::max(end, change.offset) - change.offset;
  change.fua = false;
  if (change.kind == ChangeKind::kWrite) change.bytes.resize(change.length);
  if (change.length == 0) return;
  if (disk().log_) number = disk().log_->change_submitted(change);
  apply(change, number);
  if (disk().log_) disk().log_->change_completed(number);
}

void SimStorageQueue::apply(const Change& change, uint64_t number) {
  if (disk().log_) disk().log_->change_applied(number);
  apply_whole(change, disk().state_);
}

Task<void> SimStorageQueue::flush() {
  CHECK(shard_.is_current());
  bool failing = fails(SimOperation::kFlush);
  CrashLog* log = disk().options_.flush_lies ? nullptr : disk().log_;
  uint64_t number = log ? log->flush_submitted(disk().log_number_) : 0;
  co_await delay();
  if (failing) {
    if (log) log->flush_failed(number);
    co_await failure("flush", Error::kNoOffset);
    co_return;
  }
  co_await delay();
  if (log) log->flush_completed(number);
}

Task<StorageExtent> SimStorageQueue::find_extent(HostRange range) {
  check_range(range, false);
  bool failing = fails(SimOperation::kFindExtent);
  co_await delay();
  if (failing) co_await failure("find extent", range.offset.value());
  uint64_t block = std::max<uint64_t>(node_.limits().block_size, kSectorBytes);
  uint64_t first = range.offset.align_down(block).value() / kSectorBytes;
  uint64_t end = range.end().align_up(block).value() / kSectorBytes;
  SectorContent::Run run = disk().state_.content.run_at(first, end);
  uint64_t until = (first + run.sectors) * kSectorBytes;
  bool zero = run.zero;
  if (zero) until = until / block * block;
  if (until <= range.offset.value()) {  // a block of which only a part is zero
    zero = false;
    until = range.offset.align_down(block).value() + block;
  }
  if (!zero) until = (until + block - 1) / block * block;
  StorageExtent extent;
  extent.zero = zero;
  extent.length = ByteCount(std::min(until, range.end().value()) - range.offset.value());
  co_return extent;
}

Task<void> SimStorageQueue::resize(ByteCount size) {
  CHECK(node_.limits().grows);
  CHECK(!node_.limits().read_only);
  Change change;
  change.kind = ChangeKind::kResize;
  change.length = size.value();
  co_await perform(std::move(change), SimOperation::kResize, "resize");
}

Task<void> SimStorageQueue::allocate(HostRange range) {
  check_range(range, true);
  bool failing = fails(SimOperation::kAllocate);
  co_await delay();
  if (failing) co_await failure("allocate", range.offset.value());
  if (disk().options_.stale) {
    co_await fail(at_node(Error::of(ErrorKind::kUnsupported, "allocate"), node_.id()));
  }
  if (range.end().value() <= disk().size()) co_return;
  co_await resize(range.end() - HostOffset(0));
}

}  // namespace ringdisk::sim
