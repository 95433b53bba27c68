// SPDX-License-Identifier: Apache-2.0
// The counters.
#include "file/file_state.h"

namespace ringdisk::file {
namespace {

void raise_to(std::atomic<uint64_t>& value, uint64_t at_least) {
  uint64_t before = value.load();
  while (before < at_least && !value.compare_exchange_weak(before, at_least)) continue;
}

}  // namespace

void FileState::grow_to(uint64_t size) {
  if (size_.load(std::memory_order_acquire) < size) raise_to(size_, size);
}

bool FileState::knows_nowait_writes() const {
  if (facts.kind != FileKind::kLocal) return false;
  if (nowait_works_.load(std::memory_order_relaxed)) return true;
  return !nowait_unsupported_.load(std::memory_order_relaxed) &&
         nowait_refusals_.load(std::memory_order_relaxed) < kNowaitTries;
}

void FileState::note_nowait_write(bool succeeded, bool unsupported) {
  if (succeeded) {
    if (!nowait_works_.load(std::memory_order_relaxed)) nowait_works_ = true;
  } else if (unsupported) {
    nowait_unsupported_ = true;
  } else {
    nowait_refusals_.fetch_add(1, std::memory_order_relaxed);
  }
}

bool FileState::needs_flush(uint64_t& changes) const {
  changes = changes_.load();
  return good_flushes_.load() < kFlushesBeforeSkip || flushed_changes_.load() < changes;
}

void FileState::end_flush(uint64_t changes, int errno_value) {
  if (errno_value == 0) {
    raise_to(flushed_changes_, changes);
    good_flushes_.fetch_add(1);
  } else {
    note_lost_write(errno_value);
  }
  flushes_running_.fetch_sub(1);
}

void FileState::note_lost_write(int errno_value) {
  int healthy = 0;
  broken_errno_.compare_exchange_strong(healthy, errno_value);
}

}  // namespace ringdisk::file
