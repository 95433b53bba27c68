// SPDX-License-Identifier: Apache-2.0
// MutableBuffers and ConstBuffers: one or several pieces of memory as the target or source of one
// request, cut without copying or allocating. Trivially copyable; the parts (and the array of
// iovec) belong to the caller until the request is done.
//
//   parts [ 4096 ][ 512 ][ 65536 ], slice(4100, 1000): byte 4100 lies 4 bytes into the second part,
//   so the slice is the last 508 bytes of the second part and the first 492 of the third.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/check.h"

namespace ringdisk {

template <class ByteSpan>
class BufferSequence {
 public:
  BufferSequence() = default;
  BufferSequence(ByteSpan bytes) : single_(bytes), size_(bytes.size()) {}
  // `parts` holds at least one part; memory and array stay the caller's.
  BufferSequence(const iovec* parts, size_t count) : parts_(parts), count_(count) {
    for (size_t i = 0; i < count; ++i) size_ += parts[i].iov_len;
  }
  // What may be written may be read.
  template <class Other>
    requires(!std::is_same_v<Other, ByteSpan> && std::is_convertible_v<Other, ByteSpan>)
  BufferSequence(const BufferSequence<Other>& other)
      : parts_(other.parts_),
        count_(other.count_),
        skip_(other.skip_),
        single_(other.single_),
        size_(other.size_) {}

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  bool is_single() const { return parts_ == nullptr || skip_ + size_ <= parts_->iov_len; }
  // The memory, when it is one piece.
  ByteSpan single() const {
    CHECK(is_single());
    return parts_ ? part_at(*parts_).subspan(skip_, size_) : single_;
  }

  // `length` bytes from `offset` on.
  BufferSequence slice(size_t offset, size_t length) const {
    CHECK_LE(offset, size_);
    CHECK_LE(length, size_ - offset);
    BufferSequence cut = *this;
    cut.size_ = length;
    if (!parts_) {
      cut.single_ = single_.subspan(offset, length);
      return cut;
    }
    cut.skip_ += offset;
    while (cut.count_ > 1 && cut.skip_ >= cut.parts_->iov_len) {
      cut.skip_ -= cut.parts_->iov_len;
      ++cut.parts_;
      --cut.count_;
    }
    return cut;
  }

  // Calls visit(ByteSpan) for each non-empty piece, in order.
  template <class Visit>
  void for_each(Visit visit) const {
    if (!parts_) {
      if (size_ != 0) visit(single_);
      return;
    }
    size_t left = size_, skip = skip_;
    for (const iovec* part = parts_; left != 0; ++part, skip = 0) {
      size_t here = std::min(part->iov_len - skip, left);
      if (here != 0) visit(part_at(*part).subspan(skip, here));
      left -= here;
    }
  }

  // Fills `target` with up to `capacity` iovecs for the first pieces; gives how many, and in
  // `bytes` what they cover.
  size_t to_iovecs(iovec* target, size_t capacity, size_t& bytes) const {
    size_t count = 0;
    bytes = 0;
    for_each([&](ByteSpan piece) {
      if (count == capacity) return;
      target[count].iov_base = const_cast<std::byte*>(piece.data());
      target[count++].iov_len = piece.size();
      bytes += piece.size();
    });
    return count;
  }

  // Whether every piece begins and ends at a multiple of `alignment` in memory, as O_DIRECT wants.
  bool is_memory_aligned(size_t alignment) const {
    bool aligned = true;
    for_each([&](ByteSpan piece) {
      // why: O_DIRECT asks for aligned addresses, so the address is what is looked at
      auto address = reinterpret_cast<uintptr_t>(piece.data());
      aligned = aligned && (address | piece.size()) % alignment == 0;
    });
    return aligned;
  }

 private:
  template <class Other>
  friend class BufferSequence;

  static ByteSpan part_at(const iovec& part) {
    return ByteSpan(static_cast<std::byte*>(part.iov_base), part.iov_len);
  }

  const iovec* parts_ = nullptr;  // null: single_
  size_t count_ = 0;
  size_t skip_ = 0;  // bytes of parts_[0] before the first one of ours
  ByteSpan single_;
  size_t size_ = 0;
};

using MutableBuffers = BufferSequence<MutableBytes>;  // to be written into: the target of a read
using ConstBuffers = BufferSequence<Bytes>;           // the source of a write

// Copies all of `source` into the front of `target`, which is at least as large.
inline void copy_to_buffers(Bytes source, const MutableBuffers& target) {
  size_t done = 0;
  target.slice(0, source.size()).for_each([&](MutableBytes piece) {
    copy_bytes(source.subspan(done, piece.size()), piece);
    done += piece.size();
  });
}
inline void copy_from_buffers(const ConstBuffers& source, MutableBytes target) {
  size_t done = 0;
  source.for_each([&](Bytes piece) {
    copy_bytes(piece, target.subspan(done, piece.size()));
    done += piece.size();
  });
}
inline void fill_zero(const MutableBuffers& target) {
  target.for_each([](MutableBytes piece) { fill_zero(piece); });
}

}  // namespace ringdisk
