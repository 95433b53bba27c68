// SPDX-License-Identifier: Apache-2.0
// SecretBytes: memory for keys, passphrases and everything they are computed from. It is locked
// into RAM as far as RLIMIT_MEMLOCK lets it, left out of core dumps, zero in a forked child, and
// wiped before it is given back. It has no way to be printed or copied by accident: what needs a
// second copy says so.
//
//   SecretBytes key = SecretBytes::make(64).value();     // zeros; co_await or ASSIGN_OR_RETURN
//   RETURN_IF_ERROR(pbkdf2(hash, passphrase, salt, iterations, key.bytes()));
//
// Owned by whoever derives or reads the secret; moves to whoever uses it. No locks: one thread
// writes it, then any may read. Costs two to four system calls and at least a page each, so it is
// for what lives longer than a function; WipeAtEnd is for a function's own buffers.
#pragma once

#include <cstddef>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"

namespace ringdisk {

// Overwrites `memory` with zeros in a way that no compiler drops.
void wipe(MutableBytes memory);

// Whether both are of one length and equal; takes the same time wherever they differ.
bool equal_in_constant_time(Bytes one, Bytes other);

// Wipes memory that somebody else owns, at the end of a scope.
class [[nodiscard]] WipeAtEnd {
 public:
  explicit WipeAtEnd(MutableBytes memory) : memory_(memory) {}
  WipeAtEnd(const WipeAtEnd&) = delete;
  WipeAtEnd& operator=(const WipeAtEnd&) = delete;
  ~WipeAtEnd() { wipe(memory_); }

 private:
  MutableBytes memory_;
};

class [[nodiscard]] SecretBytes {
 public:
  // Nothing.
  SecretBytes() = default;
  // `size` zeros, at the start of a page. kNoSpace: there is no memory.
  static Result<SecretBytes> make(size_t size);
  static Result<SecretBytes> copy_of(Bytes bytes);
  // Over memory that its owner keeps and that outlives it: wiped at the end, not given back.
  static SecretBytes over(MutableBytes memory);

  SecretBytes(SecretBytes&& other) noexcept
      : memory_(std::exchange(other.memory_, MutableBytes())),
        mapped_bytes_(std::exchange(other.mapped_bytes_, 0)) {}
  SecretBytes& operator=(SecretBytes&& other) noexcept {
    if (this != &other) {
      release();
      memory_ = std::exchange(other.memory_, MutableBytes());
      mapped_bytes_ = std::exchange(other.mapped_bytes_, 0);
    }
    return *this;
  }
  ~SecretBytes() { release(); }

  MutableBytes bytes() { return memory_; }
  Bytes bytes() const { return memory_; }
  size_t size() const { return memory_.size(); }
  bool empty() const { return memory_.empty(); }
  // Shows only the first `size` bytes from now on; what lies behind them is wiped.
  void shorten(size_t size);

 private:
  void release();

  MutableBytes memory_;
  size_t mapped_bytes_ = 0;  // whole pages; 0: the memory is somebody else's
};

}  // namespace ringdisk
