// SPDX-License-Identifier: Apache-2.0
// Reading and writing: cutting a request into pieces, choosing the way of each, and going on where
// a call stopped short.
#include "file/file_queue.h"

#include <algorithm>
#include <cerrno>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::file {
namespace {

// Calls that were interrupted or refused for the moment, in a row, before we believe that it will
// not end.
constexpr uint32_t kRepeatsMax = 10000;
constexpr uint64_t kPageBytes = 4096;

}  // namespace

FileQueue::FileQueue(FileState& state, Shard& shard)
    : state_(state),
      shard_(shard),
      loop_(shard.loop()),
      fixed_file_(loop_.register_file(state.fd)) {}

FileQueue::~FileQueue() {
  if (fixed_file_ >= 0) loop_.unregister_file(fixed_file_);
}

Error FileQueue::error_of(int errno_value, const char* operation, uint64_t offset) const {
  return at_node(Error::from_errno(errno_value, operation, offset), state_.node);
}

bool FileQueue::is_to_repeat(int64_t result, uint32_t& repeats) const {
  return (result == -EINTR || result == -EAGAIN) && ++repeats < kRepeatsMax;
}

// --- pieces
// ---------------------------------------------------------------------------------------

// The next at most `length_max` bytes of a request of which `done` are done.
template <class Buffers>
void FileQueue::cut_piece(const Buffers& buffers, size_t done, uint64_t offset, size_t length_max,
                          Piece& piece) {
  const size_t wanted = std::min(buffers.size() - done, length_max);
  piece.offset = offset + done;
  piece.part_count = static_cast<uint32_t>(
      buffers.slice(done, wanted).to_iovecs(piece.parts.data(), kPartsMax, piece.length));
}

IoRequest FileQueue::request_for(const Piece& piece, IoOpcode opcode, FileWay way) const {
  IoRequest request(opcode, state_.fd);
  request.fixed_file = fixed_file_;
  request.may_block = way == FileWay::kWorker;
  request.offset = piece.offset;
  if (piece.part_count == 1) {
    request.single = piece.parts[0];
    if (state_.is_direct()) {
      const auto* memory = static_cast<const std::byte*>(piece.parts[0].iov_base);
      request.fixed_buffer = shard_.buffers().fixed_slot_of(Bytes(memory, piece.length));
    }
  } else {
    request.parts = piece.parts.data();
    request.part_count = piece.part_count;
  }
  return request;
}

// The plain calls are for what is by far the most frequent: they spare the kernel the import of a
// list of parts, a thirtieth of a cached 4 KiB read.
int64_t FileQueue::read_in_place(const Piece& piece, int flags) const {
  const auto offset = static_cast<off_t>(piece.offset);
  const iovec* parts = piece.parts.data();
  const bool plain = flags == 0 && piece.part_count == 1;
  const ssize_t count =
      plain ? pread(state_.fd, parts->iov_base, parts->iov_len, offset)
            : preadv2(state_.fd, parts, static_cast<int>(piece.part_count), offset, flags);
  return count >= 0 ? count : -errno;
}

int64_t FileQueue::write_in_place(const Piece& piece, int flags) {
  const bool guarded = state_.facts.kind != FileKind::kMemory;
  const Instant start = guarded ? shard_.clock().now() : Instant();
  const auto offset = static_cast<off_t>(piece.offset);
  const iovec* parts = piece.parts.data();
  const bool plain = flags == 0 && piece.part_count == 1;
  const ssize_t count =
      plain ? pwrite(state_.fd, parts->iov_base, parts->iov_len, offset)
            : pwritev2(state_.fd, parts, static_cast<int>(piece.part_count), offset, flags);
  const int64_t result = count >= 0 ? count : -errno;
  if (guarded) write_guard_.note(start, shard_.clock().now());
  return result;
}

// Before a call in place: the loop has its turn when enough was moved since its last one.
Task<void> FileQueue::wait_for_turn() {
  while (turn_bytes_ >= kInPlaceTurnBytes) {
    const bool resets = !std::exchange(turn_pending_, true);
    co_await NextTurn(shard_);
    if (resets) {
      turn_bytes_ = 0;
      turn_pending_ = false;
    }
  }
}

// --- reading
// --------------------------------------------------------------------------------------

Task<void> FileQueue::read(HostOffset offset, MutableBuffers target) {
  for (size_t done = 0; done < target.size();) {
    const size_t count = co_await read_piece(offset, target, done);
    if (count == 0) {
      // The end of the file. Behind it lies at most the rest of its last block (of a file of odd
      // size).
      const uint64_t at = offset.value() + done;
      if (at < state_.size()) co_await fail(error_of(EIO, "read", at));
      fill_zero(target.slice(done, target.size() - done));
      co_return;
    }
    done += count;
  }
}

// Gives the bytes read, 0 at the end of the file.
Task<size_t> FileQueue::read_piece(HostOffset offset, const MutableBuffers& target, size_t done) {
  const bool direct = state_.is_direct();
  // Behind the file's end O_DIRECT may be asked for nothing that is not aligned.
  if (direct && done != 0 && offset.value() + done >= state_.size()) co_return size_t{0};
  const FileWay way = read_way(state_.facts, direct);
  Piece piece;
  uint32_t repeats = 0;
  int64_t count = -EAGAIN;
  if (way == FileWay::kInPlace || way == FileWay::kProbe) {
    if (turn_bytes_ >= kInPlaceTurnBytes) co_await wait_for_turn();
    cut_piece(target, done, offset.value(), kInPlacePieceBytes, piece);
    const int flags = way == FileWay::kProbe ? RWF_NOWAIT : 0;
    do {
      count = read_in_place(piece, flags);
    } while (count == -EINTR && is_to_repeat(count, repeats));
    if (count > 0) turn_bytes_ += static_cast<size_t>(count);
    // 0 with NOWAIT may be said of what is not there yet; the way for misses knows.
    if (way == FileWay::kProbe && (count == 0 || count == -EOPNOTSUPP)) count = -EAGAIN;
  }
  if (count == -EAGAIN) {
    const size_t length_max =
        direct ? static_cast<size_t>(limits::kRequestBytesMax) : kBufferedRingPieceBytes;
    cut_piece(target, done, offset.value(), length_max, piece);
    do {
      IoRequest request = request_for(piece, IoOpcode::kReadv, way);
      request.may_block = request.may_block || repeats != 0;
      count = co_await loop_.perform(request);
    } while (is_to_repeat(count, repeats));
  }
  if (count < 0) co_return error_of(static_cast<int>(-count), "read", piece.offset);
  co_return static_cast<size_t>(count);
}

// --- writing
// --------------------------------------------------------------------------------------

WriteSituation FileQueue::situation_of(uint64_t end, bool durable) const {
  WriteSituation situation;
  situation.durable = durable;
  situation.inside = end <= state_.size();
  situation.knows_nowait = state_.knows_nowait_writes();
  situation.flush_running = state_.is_flush_running();
  return situation;
}

Task<void> FileQueue::write(HostOffset offset, ConstBuffers source, WriteOptions options) {
  const bool wants_durable = options.fua || is_write_durable(state_.settings.cache);
  const bool durable = wants_durable && state_.settings.cache != CacheMode::kUnsafe &&
                       state_.facts.kind != FileKind::kMemory;
  const uint64_t end = offset.value() + source.size();
  if (state_.is_direct() && end > state_.size() && state_.is_regular()) {
    co_await write_past_end(offset, source, durable);
  } else if (durable) {
    co_await write_durably(offset, source);
  } else {
    co_await write_all(offset, source, false);
  }
}

// One at a time: side by side they wait for each other in threads of the kernel's.
Task<void> FileQueue::write_past_end(HostOffset offset, const ConstBuffers& source, bool durable) {
  MutexLock lock = co_await past_end_.lock();
  if (durable) {
    co_await write_durably(offset, source);
  } else {
    co_await write_all(offset, source, false);
  }
}

// RWF_DSYNC writes and makes durable in one call, and says of neither that it was the one that
// failed. A failed write changes nothing for others, a failed sync may have lost their pages: so
// the write alone is tried again, and if that works, it was the sync.
Task<void> FileQueue::write_durably(HostOffset offset, const ConstBuffers& source) {
  Result<void> written = co_await write_all(offset, source, true).result();
  if (written.ok()) co_return;
  const Error error = written.error();
  Result<void> again = co_await write_all(offset, source, false).result();
  if (again.ok()) state_.note_lost_write(error.errno_value);
  co_await fail(error);
}

Task<void> FileQueue::write_all(HostOffset offset, const ConstBuffers& source, bool durable) {
  const uint64_t end = offset.value() + source.size();
  if (!state_.is_direct()) co_await read_cold_edges(offset.value(), end);
  Result<void> outcome;
  for (size_t done = 0; done < source.size() && outcome.ok();) {
    outcome = co_await write_piece(offset, source, done, durable).result();
    state_.grow_to(offset.value() + done);
  }
  // Also after a failure: what was written before it has to be flushed like everything else.
  state_.note_change();
  co_await std::move(outcome);
}

// Moves `done` on, by at least a byte.
Task<void> FileQueue::write_piece(HostOffset offset, const ConstBuffers& source, size_t& done,
                                  bool durable) {
  const bool direct = state_.is_direct();
  const uint64_t end = offset.value() + source.size();
  FileWay way = write_way(state_.facts, direct, situation_of(end, durable));
  const bool in_place = way == FileWay::kInPlace || way == FileWay::kProbe;
  Piece piece;
  int64_t count = -EAGAIN;
  if (in_place && state_.facts.kind != FileKind::kMemory &&
      !write_guard_.allows(shard_.clock().now())) {
    way = FileWay::kWorker;
  } else if (in_place) {
    if (turn_bytes_ >= kInPlaceTurnBytes) co_await wait_for_turn();
    cut_piece(source, done, offset.value(), kInPlacePieceBytes, piece);
    count = write_in_place(piece, way == FileWay::kProbe ? RWF_NOWAIT : 0);
    if (way == FileWay::kProbe) {
      const bool unsupported = count == -EOPNOTSUPP;
      if (count > 0 || count == -EAGAIN || unsupported) {
        state_.note_nowait_write(count > 0, unsupported);
      }
      if (unsupported) count = write_in_place(piece, 0);
    }
    if (count > 0) turn_bytes_ += static_cast<size_t>(count);
  }
  if (count == -EAGAIN || count == -EINTR) {
    const size_t length_max =
        direct ? static_cast<size_t>(limits::kRequestBytesMax) : kBufferedRingPieceBytes;
    cut_piece(source, done, offset.value(), length_max, piece);
    const FileWay by_loop = in_place ? FileWay::kWorker : way;
    count = co_await write_by_loop(piece, by_loop, durable);
  }
  if (count < 0) co_await fail(error_of(static_cast<int>(-count), "write", piece.offset));
  size_t moved = static_cast<size_t>(count);
  // After a short transfer O_DIRECT goes on at a block: what it wrote of one is written again.
  if (direct && done + moved < source.size()) moved -= moved % state_.facts.block_size;
  // No progress and no errno: as write(2) of a full device may end.
  if (moved == 0) co_await fail(error_of(ENOSPC, "write", piece.offset));
  done += moved;
}

Task<int64_t> FileQueue::write_by_loop(const Piece& piece, FileWay way, bool durable) {
  uint32_t repeats = 0;
  int64_t count = 0;
  do {
    IoRequest request = request_for(piece, IoOpcode::kWritev, way);
    request.may_block = request.may_block || repeats != 0;
    request.dsync = durable;
    count = co_await loop_.perform(request);
  } while (is_to_repeat(count, repeats));
  co_return count;
}

// --- writing parts of pages
// -----------------------------------------------------------------------

// A buffered write that covers a page only in part must read it first. In place the shard would
// wait for the device, so pages that are not in memory are read by the ring before (decision 0004:
// 9 against 56 thousand a second).
Task<void> FileQueue::read_cold_edges(uint64_t begin, uint64_t end) {
  const bool waits =
      state_.facts.kind == FileKind::kLocal || state_.facts.kind == FileKind::kDevice;
  if (!waits) co_return;
  if (begin % kPageBytes != 0) co_await read_edge_if_cold(begin);
  const bool same_page = begin / kPageBytes == end / kPageBytes && begin % kPageBytes != 0;
  if (end % kPageBytes != 0 && !same_page) co_await read_edge_if_cold(end);
}

Task<void> FileQueue::read_edge_if_cold(uint64_t at) {
  if (at >= state_.size()) co_return;
  std::byte byte{};
  Piece piece;
  cut_piece(MutableBuffers(MutableBytes(&byte, 1)), 0, at, 1, piece);
  if (read_in_place(piece, RWF_NOWAIT) != -EAGAIN) co_return;
  IoRequest request = request_for(piece, IoOpcode::kReadv, FileWay::kRing);
  // Whether it succeeds is the write's affair: it meets the same page.
  const int32_t count = co_await loop_.perform(request);
  static_cast<void>(count);
}

}  // namespace ringdisk::file
