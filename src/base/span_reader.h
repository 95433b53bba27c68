// SPDX-License-Identifier: Apache-2.0
// SpanReader: reads fields of an untrusted structure from front to back, never past its end. A read
// past the end gives zero and marks the reader as failed, so a parser reads all its fields first
// and asks `ok()` once.
#pragma once

#include "base/bytes.h"
#include "base/endian.h"

namespace ringdisk {

class SpanReader {
 public:
  explicit SpanReader(Bytes bytes) : bytes_(bytes) {}

  uint8_t u8() { return has(1) ? static_cast<uint8_t>(*take(1)) : 0; }
  uint16_t be16() { return has(2) ? load_be16(take(2)) : 0; }
  uint32_t be32() { return has(4) ? load_be32(take(4)) : 0; }
  uint64_t be64() { return has(8) ? load_be64(take(8)) : 0; }
  // The next `count` bytes, or an empty view when there are fewer.
  Bytes bytes(size_t count) { return has(count) ? Bytes(take(count), count) : Bytes(); }
  void skip(size_t count) {
    if (has(count)) take(count);
  }

  bool ok() const { return ok_; }
  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }

 private:
  bool has(size_t count) {
    if (count <= left()) return ok_;
    ok_ = false;
    return false;
  }
  const std::byte* take(size_t count) {
    const std::byte* at = bytes_.data() + position_;
    position_ += count;
    return at;
  }

  Bytes bytes_;
  size_t position_ = 0;
  bool ok_ = true;
};

}  // namespace ringdisk
