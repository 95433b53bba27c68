// SPDX-License-Identifier: Apache-2.0
// ReceiveBuffer: what a connection has received and nobody has used yet. One system call brings as
// many requests as the socket holds; they are parsed where they lie, and the payload of a small
// write goes to the device from there.
//
//   memory_  [ used | received() ......... | room ]   consume() moves the first border,
//                   ^begin_                ^end_     receive() the second
//
// A pin keeps received bytes at their place until a write from there is done. When room is needed
// and the memory is pinned, reading goes on in another piece of memory, into which the unused tail
// is copied; there are at most kPiecesMax, so a slow device ends in the socket not being read.
// Belongs to one connection, on its shard.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "async/cancel.h"
#include "async/event.h"
#include "async/task.h"
#include "runtime/buffer.h"
#include "runtime/network.h"

namespace ringdisk::nbd {

class ReceiveBuffer;

// Keeps the memory of what was received() when it was made.
class [[nodiscard]] ReceivePin {
 public:
  ReceivePin() = default;
  ReceivePin(ReceivePin&& other) noexcept
      : buffer_(std::exchange(other.buffer_, nullptr)), piece_(other.piece_) {}
  ReceivePin& operator=(ReceivePin&& other) noexcept {
    if (this != &other) {
      release();
      buffer_ = std::exchange(other.buffer_, nullptr);
      piece_ = other.piece_;
    }
    return *this;
  }
  ~ReceivePin() { release(); }
  void release();

 private:
  friend class ReceiveBuffer;
  ReceiveBuffer* buffer_ = nullptr;
  uint32_t piece_ = 0;
};

class ReceiveBuffer {
 public:
  // A batch of 64 writes of 4 KiB fits; more would leave the second-level cache before it is used.
  static constexpr size_t kPieceBytes = size_t{256} << 10;
  // As much as may be wanted in one piece: the payload of a write in place, or of an option, and a
  // header.
  static constexpr size_t kContiguousMax = (size_t{64} << 10) + 64;
  static constexpr uint32_t kPiecesMax = 4;

  // Both outlive it; `pool` is that of the shard.
  ReceiveBuffer(Stream& stream, BufferPool& pool) : stream_(stream), pool_(pool) {}
  ReceiveBuffer(const ReceiveBuffer&) = delete;
  ReceiveBuffer& operator=(const ReceiveBuffer&) = delete;
  ~ReceiveBuffer();

  Bytes received() const;
  void consume(size_t bytes);
  ReceivePin pin();

  // Receives at least one and at most `bytes_max` more bytes; gives how many, 0: the peer has
  // closed its side. What received() gave before may have moved. Errors: the stream's, kCancelled.
  Task<size_t> receive(size_t bytes_max, CancelToken token);
  // Until received() has `bytes`, at most kContiguousMax. kProtocol where the stream ends before.
  Task<void> require(size_t bytes, CancelToken token);
  // The next `bytes` of the stream are thrown away.
  Task<void> skip(uint64_t bytes, CancelToken token);
  // The next target.size() bytes of the stream, received straight into `target` as far as they are
  // not here yet.
  Task<void> receive_into(MutableBytes target, CancelToken token);

 private:
  friend class ReceivePin;
  struct Piece {
    Buffer memory;
    uint32_t pins = 0;
  };

  Task<void> make_room(CancelToken token);
  bool needs_to_move() const;
  Piece* find_free_piece();
  Result<void> move_to(Piece& piece);
  void unpin(uint32_t piece);
  Piece& current() { return pieces_[current_]; }

  Stream& stream_;
  BufferPool& pool_;

  // this shard only
  std::array<Piece, kPiecesMax> pieces_;
  uint32_t current_ = 0;
  size_t begin_ = 0;
  size_t end_ = 0;
  Event unpinned_;
};

inline void ReceivePin::release() {
  if (buffer_) std::exchange(buffer_, nullptr)->unpin(piece_);
}

}  // namespace ringdisk::nbd
