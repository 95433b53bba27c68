// SPDX-License-Identifier: Apache-2.0
// ScatteredBuffer: the same bytes as one piece of memory or as several pieces of drawn lengths in
// drawn places, so that a request's cutting of its buffers is tested with every request.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/io_buffers.h"
#include "base/random.h"

namespace ringdisk::sim {

class ScatteredBuffer {
 public:
  // Holds a copy of `bytes`, in pieces whose addresses and lengths are multiples of `alignment` (a
  // power of two).
  ScatteredBuffer(Bytes bytes, uint64_t alignment, Random& random) : size_(bytes.size()) {
    constexpr size_t kGap = 4096;
    size_t pieces = random.chance(40) ? 1 : 1 + random.below(5);
    memory_.resize(size_ + (pieces + 2) * (kGap + alignment));
    // why: the pieces' addresses are to be aligned, and only the address says by how much it is off
    size_t at = (alignment - reinterpret_cast<uintptr_t>(memory_.data()) % alignment) % alignment;
    for (size_t done = 0; done < size_;) {
      size_t length = size_ - done;
      if (parts_.size() + 1 < pieces) {
        length = std::min(length, (1 + random.below(length)) / alignment * alignment);
      }
      if (length == 0) length = std::min<size_t>(alignment, size_ - done);
      parts_.push_back({memory_.data() + at, length});
      at += (length + alignment - 1) / alignment * alignment +
            random.below(kGap / alignment + 1) * alignment;
      done += length;
    }
    copy_to_buffers(bytes, writable());
  }
  ScatteredBuffer(const ScatteredBuffer&) = delete;
  ScatteredBuffer& operator=(const ScatteredBuffer&) = delete;

  MutableBuffers writable() const {
    if (parts_.size() == 1) {
      return MutableBytes(static_cast<std::byte*>(parts_[0].iov_base), parts_[0].iov_len);
    }
    return MutableBuffers(parts_.data(), parts_.size());
  }
  ConstBuffers readable() const { return writable(); }
  // What is in it now, in one piece.
  void gather(MutableBytes target) const { copy_from_buffers(readable(), target); }

 private:
  const size_t size_;
  std::vector<std::byte> memory_;
  std::vector<iovec> parts_;
};

}  // namespace ringdisk::sim
