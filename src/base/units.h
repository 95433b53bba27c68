// SPDX-License-Identifier: Apache-2.0
// Offsets, counts and indexes as different types, so that mixing them does not compile.
//
//   GuestOffset   bytes from the start of the virtual disk
//   HostOffset    bytes from the start of a storage (a file, a device, an NBD export)
//   ByteCount     a length in bytes
//   ClusterIndex  the number of a cluster, from 0: guest or host as its variable's name says
//
// Legal: offset + count, offset - count, offset - offset (a count), count + count, count - count,
// count * n, count / n, count / count (a plain number), comparisons. Overflow of an addition is a
// bug and CHECKed: values that come from outside are bounded by a parser before they become one of
// these (kOffsetMax).
//
// Worked example, cluster size 65536:  GuestOffset(70000): align_down -> 65536, offset_in(65536) ->
// ByteCount 4464
#pragma once

#include <algorithm>
#include <bit>
#include <compare>
#include <cstdint>

#include "base/check.h"

namespace ringdisk {

// The largest offset any storage or disk here has: what off_t can hold.
inline constexpr uint64_t kOffsetMax = (uint64_t{1} << 63) - 1;

class ByteCount {
 public:
  constexpr ByteCount() = default;
  constexpr explicit ByteCount(uint64_t value) : value_(value) {}
  constexpr uint64_t value() const { return value_; }
  constexpr auto operator<=>(const ByteCount&) const = default;
  constexpr bool is_zero() const { return value_ == 0; }

  friend constexpr ByteCount operator+(ByteCount a, ByteCount b) {
    CHECK_LE(b.value_, ~uint64_t{0} - a.value_);
    return ByteCount(a.value_ + b.value_);
  }
  friend constexpr ByteCount operator-(ByteCount a, ByteCount b) {
    CHECK_GE(a.value_, b.value_);
    return ByteCount(a.value_ - b.value_);
  }
  friend constexpr ByteCount operator*(ByteCount a, uint64_t n) { return ByteCount(a.value_ * n); }
  friend constexpr ByteCount operator/(ByteCount a, uint64_t n) { return ByteCount(a.value_ / n); }
  friend constexpr uint64_t operator/(ByteCount a, ByteCount b) { return a.value_ / b.value_; }
  constexpr ByteCount& operator+=(ByteCount b) { return *this = *this + b; }
  constexpr ByteCount& operator-=(ByteCount b) { return *this = *this - b; }

 private:
  uint64_t value_ = 0;
};

template <class Tag>
class Offset {
 public:
  constexpr Offset() = default;
  constexpr explicit Offset(uint64_t value) : value_(value) {}
  constexpr uint64_t value() const { return value_; }
  constexpr auto operator<=>(const Offset&) const = default;

  friend constexpr Offset operator+(Offset a, ByteCount b) {
    CHECK_LE(b.value(), ~uint64_t{0} - a.value_);
    return Offset(a.value_ + b.value());
  }
  friend constexpr Offset operator-(Offset a, ByteCount b) {
    CHECK_GE(a.value_, b.value());
    return Offset(a.value_ - b.value());
  }
  friend constexpr ByteCount operator-(Offset a, Offset b) {
    CHECK_GE(a.value_, b.value_);
    return ByteCount(a.value_ - b.value_);
  }
  constexpr Offset& operator+=(ByteCount b) { return *this = *this + b; }

  // `alignment` is a power of two.
  constexpr Offset align_down(uint64_t alignment) const {
    return Offset(value_ & ~(alignment - 1));
  }
  constexpr Offset align_up(uint64_t alignment) const {
    CHECK_LE(value_, ~uint64_t{0} - (alignment - 1));
    return Offset((value_ + alignment - 1) & ~(alignment - 1));
  }
  constexpr ByteCount offset_in(uint64_t alignment) const {
    return ByteCount(value_ & (alignment - 1));
  }
  constexpr bool is_aligned(uint64_t alignment) const { return (value_ & (alignment - 1)) == 0; }

 private:
  uint64_t value_ = 0;
};

using GuestOffset = Offset<struct GuestOffsetTag>;
using HostOffset = Offset<struct HostOffsetTag>;

class ClusterIndex {
 public:
  constexpr ClusterIndex() = default;
  constexpr explicit ClusterIndex(uint64_t value) : value_(value) {}
  constexpr uint64_t value() const { return value_; }
  constexpr auto operator<=>(const ClusterIndex&) const = default;
  friend constexpr ClusterIndex operator+(ClusterIndex a, uint64_t n) {
    return ClusterIndex(a.value_ + n);
  }
  friend constexpr uint64_t operator-(ClusterIndex a, ClusterIndex b) {
    CHECK_GE(a.value_, b.value_);
    return a.value_ - b.value_;
  }

 private:
  uint64_t value_ = 0;
};

// A stretch of bytes: [offset, offset + length). It may be empty.
template <class OffsetType>
struct Range {
  OffsetType offset;
  ByteCount length;

  constexpr Range() = default;
  constexpr Range(OffsetType at, ByteCount count) : offset(at), length(count) {}
  static constexpr Range between(OffsetType begin, OffsetType end) { return {begin, end - begin}; }

  constexpr OffsetType end() const { return offset + length; }
  constexpr bool empty() const { return length.is_zero(); }
  constexpr bool operator==(const Range&) const = default;
  constexpr bool contains(OffsetType at) const { return at >= offset && at < end(); }
  constexpr bool contains(const Range& other) const {
    return other.offset >= offset && other.end() <= end();
  }
  constexpr bool overlaps(const Range& other) const {
    return offset < other.end() && other.offset < end();
  }
  constexpr Range intersection(const Range& other) const {
    OffsetType begin = std::max(offset, other.offset);
    OffsetType stop = std::min(end(), other.end());
    return stop > begin ? between(begin, stop) : Range(begin, ByteCount(0));
  }
  constexpr bool is_aligned(uint64_t alignment) const {
    return offset.is_aligned(alignment) && (length.value() & (alignment - 1)) == 0;
  }
  // The aligned blocks that the range touches.
  constexpr Range widened(uint64_t alignment) const {
    return between(offset.align_down(alignment), end().align_up(alignment));
  }
  // The aligned blocks that lie wholly within the range; empty where there is none.
  constexpr Range narrowed(uint64_t alignment) const {
    OffsetType begin = offset.align_up(alignment);
    OffsetType stop = end().align_down(alignment);
    return stop > begin ? between(begin, stop) : Range(begin, ByteCount(0));
  }
};

using GuestRange = Range<GuestOffset>;
using HostRange = Range<HostOffset>;

// A range that is known to begin and end at multiples of `alignment` (a power of two): what
// storages take.
template <class OffsetType>
class AlignedRange {
 public:
  AlignedRange(Range<OffsetType> range, uint64_t alignment) : range_(range) {
    CHECK(std::has_single_bit(alignment));
    CHECK(range.is_aligned(alignment));
  }
  const Range<OffsetType>& range() const { return range_; }

 private:
  Range<OffsetType> range_;
};

}  // namespace ringdisk
