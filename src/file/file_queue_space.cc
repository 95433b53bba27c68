// SPDX-License-Identifier: Apache-2.0
// Zeroes, holes, space and size: fallocate in its modes, with what stands in for a mode that a file
// system lacks.
//
//   zeroes, may unmap:  punch a hole ─ or ─> zero range ─ or ─> write zeros
//   zeroes, must not:   zero range ─ or ─> punch a hole and allocate it ─ or ─> write zeros
//
// Growing never uses ftruncate with a size that was read before: another queue may have written
// further out meanwhile, and that would be cut off. fallocate only ever grows.
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "file/file_queue.h"
#include "runtime/blocking_pool.h"
#include "runtime/next_turn.h"

namespace ringdisk::file {
namespace {

constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr int kAllocate = 0;

bool means_unsupported(int32_t result) {
  return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENOTTY;
}

}  // namespace

Task<int32_t> FileQueue::call_fallocate(int mode, HostRange range) {
  const uint64_t offset = range.offset.value(), length = range.length.value();
  uint32_t repeats = 0;
  int32_t result = 0;
  if (allocate_way(state_.facts, length) == FileWay::kInPlace) {
    if (turn_bytes_ >= kInPlaceTurnBytes) co_await wait_for_turn();
    turn_bytes_ += static_cast<size_t>(length);
    do {
      const int failed =
          fallocate(state_.fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
      result = failed == 0 ? 0 : -errno;
    } while (is_to_repeat(result, repeats));
    co_return result;
  }
  do {
    IoRequest request = IoRequest::allocate(state_.fd, mode, offset, length);
    request.fixed_file = fixed_file_;
    result = co_await loop_.perform(request);
  } while (is_to_repeat(result, repeats));
  co_return result;
}

// False where the file system cannot; it is not asked again.
Task<bool> FileQueue::try_fallocate(int mode, HostRange range, std::atomic<bool>& works,
                                    const char* operation) {
  if (!works.load(std::memory_order_relaxed)) co_return false;
  const int32_t result = co_await call_fallocate(mode, range);
  if (means_unsupported(result)) {
    works.store(false, std::memory_order_relaxed);
    co_return false;
  }
  if (result < 0) co_return error_of(-result, operation, range.offset.value());
  if (mode != kAllocate) state_.note_hole();
  state_.note_change();
  co_return true;
}

Task<bool> FileQueue::try_punch(HostRange range, const char* operation) {
  co_return co_await try_fallocate(kPunch, range, state_.punches, operation).result();
}

// Makes the file reach to the end of `range`, with space for its last byte, which nobody else may
// be using.
Task<bool> FileQueue::try_grow(HostRange range) {
  if (range.end().value() <= state_.size()) co_return true;
  HostRange last(range.end() - ByteCount(1), ByteCount(1));
  const bool grown = co_await try_fallocate(kAllocate, last, state_.allocates, "write zeroes");
  if (grown) state_.grow_to(range.end().value());
  co_return grown;
}

Task<bool> FileQueue::try_zero(HostRange range, bool may_unmap) {
  const int zero_mode = FALLOC_FL_ZERO_RANGE | (state_.is_regular() ? 0 : FALLOC_FL_KEEP_SIZE);
  if (may_unmap) {
    bool punched = co_await try_grow(range);
    if (punched) punched = co_await try_punch(range, "write zeroes");
    if (punched) co_return true;
  }
  const bool zeroed = co_await try_fallocate(zero_mode, range, state_.zeroes, "write zeroes");
  if (zeroed) {
    if (state_.is_regular()) state_.grow_to(range.end().value());
    co_return true;
  }
  if (may_unmap || !state_.is_regular()) co_return false;
  bool replaced = co_await try_punch(range, "write zeroes");
  if (replaced) {
    replaced = co_await try_fallocate(kAllocate, range, state_.allocates, "write zeroes");
  }
  if (replaced) state_.grow_to(range.end().value());
  co_return replaced;
}

Task<void> FileQueue::write_zeroes(HostRange range, ZeroOptions options) {
  const bool zeroed = co_await try_zero(range, options.may_unmap);
  if (!zeroed) {
    if (options.fast_only) {
      co_await fail(error_of(ENOTSUP, "write zeroes", range.offset.value()));
    }
    co_await write_out_zeroes(range);
  }
  if (options.fua || is_write_durable(state_.settings.cache)) co_await make_durable();
}

Task<void> FileQueue::write_out_zeroes(HostRange range) {
  const auto piece_max =
      static_cast<size_t>(std::min(range.length.value(), limits::kBouncePieceBytesMax));
  Buffer zeroes = shard_.buffers().take(piece_max);
  fill_zero(zeroes.first(piece_max));
  while (!range.empty()) {
    const auto length = static_cast<size_t>(std::min<uint64_t>(range.length.value(), piece_max));
    co_await write(range.offset, ConstBuffers(Bytes(zeroes.first(length))), WriteOptions());
    range = HostRange::between(range.offset + ByteCount(length), range.end());
  }
}

Task<void> FileQueue::discard(HostRange range) {
  if (!state_.settings.discard) co_return;
  // Where holes cannot be made, keeping what was there is an answer, too. On devices this mode
  // gives zeros or fails; plain discarding there could show what somebody else had written.
  const bool punched = co_await try_punch(range, "discard");
  static_cast<void>(punched);
}

Task<void> FileQueue::allocate(HostRange range) {
  bool allocated = false;
  if (state_.is_regular()) {
    allocated = co_await try_fallocate(kAllocate, range, state_.allocates, "allocate");
  }
  if (!allocated) co_await fail(error_of(ENOTSUP, "allocate", range.offset.value()));
  state_.grow_to(range.end().value());
}

// Growing touches the inode alone (some 5 us); cutting a large file gives back its blocks one by
// one, in the pool.
Task<void> FileQueue::resize(ByteCount size) {
  if (size.value() > kOffsetMax) co_await fail(error_of(EFBIG, "resize", size.value()));
  const int fd = state_.fd;
  auto truncate = [fd, size](Blocking) -> Result<void> {
    if (ftruncate(fd, static_cast<off_t>(size.value())) == 0) return {};
    return Error::from_errno(errno, "resize", size.value());
  };
  const bool in_place = state_.facts.kind != FileKind::kOpaque && size.value() >= state_.size();
  Result<void> resized;
  if (in_place) {
    if (ftruncate(fd, static_cast<off_t>(size.value())) != 0) {
      resized = Error::from_errno(errno, "resize", size.value());
    }
  } else {
    resized = co_await run_blocking(state_.blocking, truncate).result();
  }
  if (!resized.ok()) co_await fail(at_node(resized.error(), state_.node));
  state_.set_size(size.value());
  state_.note_hole();
  state_.note_change();
}

}  // namespace ringdisk::file
