// SPDX-License-Identifier: Apache-2.0
// Padding, splitting and zero-filling in front of a storage driver.
//
//   asked:        |----------------------|
//   blocks:   |=======|=======|=======|=======|
//   read:     all four into a bounce buffer, the middle copied out
//   write:    first and last block read, changed, written with the middle, all under the BlockLock
//
// Every write to a storage whose block is larger than a byte holds the lock for its blocks, aligned
// ones too: a padded write that ran beside an aligned one would put back what the aligned one
// replaced.
#include "block/storage_access.h"

#include <algorithm>
#include <cerrno>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "runtime/shard.h"

namespace ringdisk {

StorageAccess::StorageAccess(SharedStorage& storage, std::unique_ptr<StorageQueue> queue,
                             Shard& shard)
    : storage_(storage), limits_(storage.node->limits()), shard_(shard), queue_(std::move(queue)) {
  CHECK(std::has_single_bit(limits_.block_size));
  CHECK_LE(uint64_t{limits_.block_size}, limits::kBouncePieceBytesMax);
}

Task<std::unique_ptr<StorageAccess>> StorageAccess::open(SharedStorage& storage, Shard& shard) {
  std::unique_ptr<StorageQueue> queue = co_await storage.node->open_queue(shard);
  co_return std::make_unique<StorageAccess>(storage, std::move(queue), shard);
}

template <class Buffers>
bool StorageAccess::is_direct(HostOffset offset, const Buffers& buffers) const {
  return is_aligned(offset, buffers.size()) && buffers.size() <= limits::kRequestBytesMax &&
         (limits_.memory_alignment == 1 || buffers.is_memory_aligned(limits_.memory_alignment));
}

Result<void> StorageAccess::admit(HostOffset offset, uint64_t length, const char* operation) const {
  if (offset.value() <= kOffsetMax && length <= kOffsetMax - offset.value()) return {};
  Error error = Error::of(ErrorKind::kInvalid, operation, offset.value());
  error.node = node_id();
  return error;
}

Result<void> StorageAccess::admit_write(HostOffset offset, uint64_t length,
                                        const char* operation) const {
  RETURN_IF_ERROR(admit(offset, length, operation));
  Error error = Error::of(ErrorKind::kDenied, operation, offset.value());
  if (!limits_.read_only) {
    if (limits_.grows || offset.value() + length <= size().value()) return {};
    error = Error::of(ErrorKind::kNoSpace, operation, offset.value());
  }
  error.node = node_id();
  return error;
}

// Reading

Task<void> StorageAccess::read(HostOffset offset, MutableBuffers target) {
  ++counters_.reads;
  counters_.bytes_read += target.size();
  // The end is looked at before it is added to, so that nothing overflows.
  const uint64_t end = size().value();
  if (!target.empty() && offset.value() <= end && target.size() <= end - offset.value() &&
      is_direct(offset, target)) [[likely]] {
    return queue_->read(offset, target);
  }
  return read_padded(offset, target);
}

Task<void> StorageAccess::read_padded(HostOffset offset, MutableBuffers target) {
  co_await admit(offset, target.size(), "read");
  const uint64_t end = size().value();
  const uint64_t there = offset.value() < end ? end - offset.value() : 0;
  const size_t inside = static_cast<size_t>(std::min<uint64_t>(target.size(), there));
  if (inside != target.size() && limits_.error_beyond_end) {
    Error error = *limits_.error_beyond_end;
    error.offset = std::max(offset.value(), end);
    co_await fail(error);
  }
  fill_zero(target.slice(inside, target.size() - inside));
  for (size_t done = 0; done < inside;) {
    HostOffset at = offset + ByteCount(done);
    size_t piece = std::min<size_t>(inside - done, limits::kRequestBytesMax);
    if (is_direct(at, target.slice(done, piece))) {
      co_await queue_->read(at, target.slice(done, piece));
    } else {
      // So that the next piece begins at a block.
      const size_t lead = static_cast<size_t>(at.offset_in(limits_.block_size).value());
      piece = std::min<size_t>(piece, limits::kBouncePieceBytesMax - lead);
      co_await read_block_run(at, target.slice(done, piece));
    }
    done += piece;
  }
}

// One piece through a bounce buffer. The storage's last block may be cut by its end (a file of odd
// size).
Task<void> StorageAccess::read_block_run(HostOffset offset, MutableBuffers target) {
  HostRange blocks = HostRange(offset, ByteCount(target.size())).widened(limits_.block_size);
  Buffer bounce = co_await shard_.buffers().try_take(blocks.length.value());
  MutableBytes whole = bounce.first(blocks.length.value());
  co_await queue_->read(blocks.offset, MutableBuffers(whole));
  const size_t lead = static_cast<size_t>((offset - blocks.offset).value());
  copy_to_buffers(whole.subspan(lead, target.size()), target);
}

// Writing

Task<void> StorageAccess::write(HostOffset offset, ConstBuffers source, WriteOptions options) {
  ++counters_.writes;
  counters_.bytes_written += source.size();
  if (limits_.block_size == 1 && !source.empty() &&
      admit_write(offset, source.size(), "write").ok() && is_direct(offset, source)) [[likely]] {
    return queue_->write(offset, source, options);
  }
  return write_guarded(offset, source, options);
}

Task<void> StorageAccess::write_guarded(HostOffset offset, ConstBuffers source,
                                        WriteOptions options) {
  co_await admit_write(offset, source.size(), "write");
  if (source.empty()) co_return;
  if (limits_.block_size == 1) {
    co_await write_padded(offset, source, options);
    co_return;
  }
  BlockGuard guard(storage_.block_lock,
                   HostRange(offset, ByteCount(source.size())).widened(limits_.block_size), shard_);
  co_await guard.acquired();
  co_await write_padded(offset, source, options);
}

Task<void> StorageAccess::write_padded(HostOffset offset, ConstBuffers source,
                                       WriteOptions options) {
  for (size_t done = 0; done < source.size();) {
    HostOffset at = offset + ByteCount(done);
    size_t piece = std::min<size_t>(source.size() - done, limits::kRequestBytesMax);
    if (is_direct(at, source.slice(done, piece))) {
      co_await queue_->write(at, source.slice(done, piece), options);
    } else {
      const size_t lead = static_cast<size_t>(at.offset_in(limits_.block_size).value());
      piece = std::min<size_t>(piece, limits::kBouncePieceBytesMax - lead);
      co_await write_block_run(at, source.slice(done, piece), options);
    }
    done += piece;
  }
}

// One piece through a bounce buffer, its first and last block filled up with what is there.
Task<void> StorageAccess::write_block_run(HostOffset offset, ConstBuffers source,
                                          WriteOptions options) {
  const uint32_t block = limits_.block_size;
  HostRange asked(offset, ByteCount(source.size()));
  HostRange blocks = asked.widened(block);
  Buffer bounce = co_await shard_.buffers().try_take(blocks.length.value());
  MutableBytes whole = bounce.first(blocks.length.value());
  const size_t lead = static_cast<size_t>((offset - blocks.offset).value());
  const bool cut_first = lead != 0;
  const bool cut_last = blocks.end() != asked.end();
  const bool one_block = blocks.length == ByteCount(block);
  if (cut_first || (cut_last && one_block)) {
    co_await read_padded(blocks.offset, MutableBuffers(whole.first(block)));
  }
  if (cut_last && !one_block) {
    co_await read_padded(blocks.end() - ByteCount(block), MutableBuffers(whole.last(block)));
  }
  copy_from_buffers(source, whole.subspan(lead, source.size()));
  co_await queue_->write(blocks.offset, ConstBuffers(whole), options);
}

// Zeroes and the rest

Task<void> StorageAccess::write_zeroes(HostRange range, ZeroOptions options) {
  ++counters_.zeroes;
  return zero_guarded(range, options);
}

Task<void> StorageAccess::zero_guarded(HostRange range, ZeroOptions options) {
  co_await admit_write(range.offset, range.length.value(), "write zeroes");
  if (range.empty()) co_return;
  if (limits_.block_size == 1) {
    co_await queue_->write_zeroes(range, options);
    co_return;
  }
  BlockGuard guard(storage_.block_lock, range.widened(limits_.block_size), shard_);
  co_await guard.acquired();
  co_await zero_with_edges(range, options);
}

Task<void> StorageAccess::zero_with_edges(HostRange range, ZeroOptions options) {
  HostRange blocks = range.narrowed(limits_.block_size);
  if (blocks.empty()) {
    if (options.fast_only) {
      co_await fail(at_node(Error::of(ErrorKind::kUnsupported, "write zeroes"), node_id()));
    }
    co_await write_out_zeroes(range, options.fua);
    co_return;
  }
  // The middle first: where it is refused as not fast, nothing has been written.
  co_await queue_->write_zeroes(blocks, options);
  if (range.offset < blocks.offset) {
    co_await write_out_zeroes(HostRange::between(range.offset, blocks.offset), options.fua);
  }
  if (blocks.end() < range.end()) {
    co_await write_out_zeroes(HostRange::between(blocks.end(), range.end()), options.fua);
  }
}

// Less than a block at an edge, or within one or two blocks. The caller holds the lock.
Task<void> StorageAccess::write_out_zeroes(HostRange range, bool fua) {
  const size_t length = static_cast<size_t>(range.length.value());
  Buffer zeroes = co_await shard_.buffers().try_take(length);
  fill_zero(zeroes.first(length));
  WriteOptions options;
  options.fua = fua;
  co_await write_padded(range.offset, ConstBuffers(Bytes(zeroes.first(length))), options);
}

Task<void> StorageAccess::discard(HostRange range) {
  ++counters_.discards;
  co_await admit(range.offset, range.length.value(), "discard");
  if (limits_.read_only)
    co_await fail(at_node(Error::of(ErrorKind::kDenied, "discard"), node_id()));
  const HostRange whole(HostOffset(0), size());
  HostRange blocks =
      range.narrowed(limits_.block_size).intersection(whole.narrowed(limits_.block_size));
  if (blocks.empty()) co_return;
  if (limits_.block_size == 1) {
    co_await queue_->discard(blocks);
    co_return;
  }
  BlockGuard guard(storage_.block_lock, blocks, shard_);
  co_await guard.acquired();
  co_await queue_->discard(blocks);
}

Task<void> StorageAccess::flush() {
  ++counters_.flushes;
  return queue_->flush();
}

Task<StorageExtent> StorageAccess::find_extent(HostRange range) {
  co_await admit(range.offset, range.length.value(), "find extent");
  CHECK(!range.empty());
  HostRange inside = range.intersection(HostRange(HostOffset(0), size()));
  StorageExtent extent;
  if (inside.empty()) {  // beyond the end
    extent.length = range.length;
    extent.zero = !limits_.error_beyond_end;
    co_return extent;
  }
  HostRange blocks =
      inside.widened(limits_.block_size).intersection(HostRange(HostOffset(0), size()));
  extent = co_await queue_->find_extent(blocks);
  CHECK(!extent.length.is_zero());
  // What was found counts from the block's start; give what is left of it from the asked offset.
  HostRange found = HostRange(blocks.offset, extent.length).intersection(inside);
  if (found.empty()) {
    extent.length = std::min(inside.length, ByteCount(limits_.block_size));
    extent.zero = false;
  } else {
    extent.length = found.length;
  }
  co_return extent;
}

Task<void> StorageAccess::resize(ByteCount size) {
  co_await admit(HostOffset(0), size.value(), "resize");
  if (limits_.read_only) co_await fail(at_node(Error::of(ErrorKind::kDenied, "resize"), node_id()));
  if (!limits_.grows) {
    if (size <= this->size()) co_return;
    co_await fail(at_node(Error::of(ErrorKind::kNoSpace, "resize", size.value()), node_id()));
  }
  co_await queue_->resize(size);
}

Task<void> StorageAccess::allocate(HostRange range) {
  co_await admit_write(range.offset, range.length.value(), "allocate");
  if (range.empty()) co_return;
  co_await queue_->allocate(range.widened(limits_.block_size));
}

}  // namespace ringdisk
