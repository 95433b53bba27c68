// SPDX-License-Identifier: Apache-2.0
// Where received bytes lie, and when they may move.
#include "nbd/receive_buffer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace ringdisk::nbd {
namespace {

// With less room than this at the end of the memory, the unused tail is moved to the front: a
// system call for a few bytes costs more than copying what is at most one request.
constexpr size_t kRoomMin = 16 << 10;

Error closed_early() { return Error::of(ErrorKind::kProtocol, "receive"); }

}  // namespace

ReceiveBuffer::~ReceiveBuffer() {
  for (const Piece& piece : pieces_) CHECK_EQ(piece.pins, uint32_t{0});
}

Bytes ReceiveBuffer::received() const {
  if (begin_ == end_) return {};
  return pieces_[current_].memory.bytes().subspan(begin_, end_ - begin_);
}

void ReceiveBuffer::consume(size_t bytes) {
  CHECK_LE(bytes, end_ - begin_);
  begin_ += bytes;
}

ReceivePin ReceiveBuffer::pin() {
  ReceivePin pin;
  pin.buffer_ = this;
  pin.piece_ = current_;
  ++current().pins;
  return pin;
}

void ReceiveBuffer::unpin(uint32_t piece) {
  Piece& unpinned = pieces_[piece];
  if (--unpinned.pins != 0) return;
  if (piece != current_) unpinned.memory.release();
  unpinned_.set();
}

bool ReceiveBuffer::needs_to_move() const {
  return end_ == kPieceBytes || kPieceBytes - begin_ < kContiguousMax;
}

ReceiveBuffer::Piece* ReceiveBuffer::find_free_piece() {
  if (current().pins == 0) return &current();
  for (Piece& piece : pieces_) {
    if (piece.pins == 0) return &piece;
  }
  return nullptr;
}

Result<void> ReceiveBuffer::move_to(Piece& piece) {
  Bytes tail = received();
  if (&piece == &current()) {
    if (!tail.empty()) std::memmove(piece.memory.bytes().data(), tail.data(), tail.size());
  } else {
    ASSIGN_OR_RETURN(piece.memory, pool_.try_take(kPieceBytes));
    copy_bytes(tail, piece.memory.first(tail.size()));
    current_ = static_cast<uint32_t>(&piece - pieces_.data());
  }
  begin_ = 0;
  end_ = tail.size();
  return {};
}

Task<void> ReceiveBuffer::make_room(CancelToken token) {
  if (current().memory.empty()) {
    Buffer first = co_await pool_.try_take(kPieceBytes);
    current().memory = std::move(first);
  }
  while (needs_to_move()) {
    Piece* piece = find_free_piece();
    if (piece) {
      co_await move_to(*piece);
      co_return;
    }
    unpinned_.reset();
    Result<void> unpinned = co_await unpinned_.wait_or_cancel(token);
    co_await std::move(unpinned);
  }
}

Task<size_t> ReceiveBuffer::receive(size_t bytes_max, CancelToken token) {
  if (current().pins == 0 && (begin_ == end_ || kPieceBytes - end_ < kRoomMin)) {
    if (!current().memory.empty()) co_await move_to(current());
  }
  if (current().memory.empty() || needs_to_move()) co_await make_room(token);
  size_t room = std::min(kPieceBytes - end_, bytes_max);
  MutableBytes target = current().memory.bytes().subspan(end_, room);
  size_t bytes = co_await stream_.read_some(target, token);
  end_ += bytes;
  co_return bytes;
}

Task<void> ReceiveBuffer::require(size_t bytes, CancelToken token) {
  CHECK_LE(bytes, kContiguousMax);
  while (received().size() < bytes) {
    size_t more = co_await receive(kPieceBytes, token);
    if (more == 0) co_await fail(closed_early());
  }
}

Task<void> ReceiveBuffer::skip(uint64_t bytes, CancelToken token) {
  while (true) {
    size_t here = static_cast<size_t>(std::min<uint64_t>(received().size(), bytes));
    consume(here);
    bytes -= here;
    if (bytes == 0) co_return;
    size_t more = co_await receive(kPieceBytes, token);
    if (more == 0) co_await fail(closed_early());
  }
}

Task<void> ReceiveBuffer::receive_into(MutableBytes target, CancelToken token) {
  Bytes here = received().first(std::min(received().size(), target.size()));
  copy_bytes(here, target.first(here.size()));
  consume(here.size());
  for (size_t done = here.size(); done < target.size();) {
    MutableBytes rest = target.subspan(done);
    size_t more = co_await stream_.read_some(rest, token);
    if (more == 0) co_await fail(closed_early());
    done += more;
  }
}

}  // namespace ringdisk::nbd
