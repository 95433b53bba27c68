// SPDX-License-Identifier: Apache-2.0
// Flushing. fdatasync covers all that was written before it began, whoever wrote it, so those who
// ask while one runs share the next one: it has not begun yet, and one is enough for all.
//
//   asked:   a      b c d        e
//   running: [--1--][------2----][---3---]      b, c and d wait for 2
#include <unistd.h>

#include <cerrno>

#include "base/diagnostics.h"
#include "file/file_queue.h"

namespace ringdisk::file {

Task<void> FileQueue::flush() {
  if (state_.settings.cache == CacheMode::kUnsafe || state_.settings.read_only) co_return;
  co_await make_durable();
}

Task<void> FileQueue::make_durable() {
  if (state_.settings.cache == CacheMode::kUnsafe) co_return;
  const uint64_t wanted = flushes_begun_ + 1;
  while (flushes_ended_ < wanted) {
    if (flush_running_) {
      co_await flush_ended_.wait();
    } else {
      co_await run_flush();
    }
  }
  const int broken = state_.broken_errno();
  if (broken != 0) co_await fail(error_of(broken, "flush", Error::kNoOffset));
}

// Leaves a failure in the state, where it stays.
Task<void> FileQueue::run_flush() {
  flush_running_ = true;
  flush_ended_.reset();
  ++flushes_begun_;
  uint64_t changes = 0;
  // While another queue's flush runs, what it covers is not durable yet, nor counted as flushed.
  if (state_.broken_errno() == 0 && state_.needs_flush(changes)) {
    state_.begin_flush();
    int32_t result = 0;
    uint32_t repeats = 0;
    if (state_.facts.kind == FileKind::kMemory) {
      result = fdatasync(state_.fd) == 0 ? 0 : -errno;
    } else {
      do {
        IoRequest request = IoRequest::sync(state_.fd);
        request.fixed_file = fixed_file_;
        result = co_await loop_.perform(request);
      } while (result == -EINTR && is_to_repeat(result, repeats));
    }
    state_.end_flush(changes, result < 0 ? -result : 0);
  }
  flushes_ended_ = flushes_begun_;
  flush_running_ = false;
  flush_ended_.set();
}

}  // namespace ringdisk::file
