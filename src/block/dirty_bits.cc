// SPDX-License-Identifier: Apache-2.0
// All but mark(): word by word.
#include "block/dirty_bits.h"

#include <algorithm>
#include <bit>

#include "base/endian.h"

namespace ringdisk {

DirtyBits::DirtyBits(ByteCount size, uint32_t granularity_bits)
    : size_(size), granularity_bits_(granularity_bits) {
  CHECK_LE(granularity_bits, 62u);
  words_ = std::make_unique<Word[]>(words());
}

uint64_t DirtyBits::valid_bits(uint64_t word) const {
  const uint64_t left = bits() - word * kWordBits;
  return left >= kWordBits ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
}

// The first bit from `first` on that is not as `is_dirty` says; `end` where there is none.
uint64_t DirtyBits::next_unlike(uint64_t first, uint64_t end, bool is_dirty) const {
  const uint64_t flip = is_dirty ? ~uint64_t{0} : 0;
  for (uint64_t word = first / kWordBits; word * kWordBits < end; ++word) {
    uint64_t unlike = words_[word].load(std::memory_order_relaxed) ^ flip;
    if (word == first / kWordBits) unlike &= ~uint64_t{0} << (first % kWordBits);
    if (unlike == 0) continue;
    return std::min(end, word * kWordBits + static_cast<uint64_t>(std::countr_zero(unlike)));
  }
  return end;
}

DirtyBits::Stretch DirtyBits::find_stretch(GuestRange range) const {
  CHECK(!range.empty());
  CHECK_LE(range.end().value(), size_.value());
  const uint64_t first = range.offset.value() >> granularity_bits_;
  const uint64_t end = ((range.end().value() - 1) >> granularity_bits_) + 1;
  const uint64_t word = words_[first / kWordBits].load(std::memory_order_relaxed);
  bool is_dirty = (word >> (first % kWordBits) & 1) != 0;
  uint64_t next = next_unlike(first, end, is_dirty);
  if (next == first) {  // another shard has set it in between
    is_dirty = true;
    next = next_unlike(first, end, is_dirty);
  }
  // A granule may be longer than the rest of the address space.
  const uint64_t stop =
      next >= end ? range.end().value() : std::min(range.end().value(), next << granularity_bits_);
  return {ByteCount(stop - range.offset.value()), is_dirty};
}

void DirtyBits::clear() {
  for (uint64_t word = 0; word < words(); ++word) {
    words_[word].store(0, std::memory_order_relaxed);
  }
  changed_.store(true, std::memory_order_relaxed);
}

void DirtyBits::resize(ByteCount size) {
  const uint64_t kept = std::min(bits(), count_bits(size));
  std::unique_ptr<Word[]> before = std::move(words_);
  size_ = size;
  words_ = std::make_unique<Word[]>(words());
  for (uint64_t word = 0; word * kWordBits < kept; ++word) {
    uint64_t value = before[word].load(std::memory_order_relaxed);
    const uint64_t left = kept - word * kWordBits;
    if (left < kWordBits) value &= (uint64_t{1} << left) - 1;
    words_[word].store(value, std::memory_order_relaxed);
  }
  changed_.store(true, std::memory_order_relaxed);
}

void DirtyBits::merge(const DirtyBits& other) {
  CHECK_EQ(size_.value(), other.size_.value());
  for (GuestRange rest(GuestOffset(0), size_); !rest.empty();) {
    const Stretch stretch = other.find_stretch(rest);
    if (stretch.is_dirty) mark(GuestRange(rest.offset, stretch.length));
    rest = GuestRange::between(rest.offset + stretch.length, rest.end());
  }
}

void DirtyBits::load(uint64_t first, Bytes bytes) {
  CHECK_EQ((first | bytes.size()) % 8, uint64_t{0});
  for (uint64_t at = 0; at < bytes.size() && (first + at) / 8 < words(); at += 8) {
    const uint64_t word = (first + at) / 8;
    words_[word].store(load_le64(&bytes[at]) & valid_bits(word), std::memory_order_relaxed);
  }
}

void DirtyBits::store(uint64_t first, MutableBytes bytes) const {
  CHECK_EQ((first | bytes.size()) % 8, uint64_t{0});
  for (uint64_t at = 0; at < bytes.size(); at += 8) {
    const uint64_t word = (first + at) / 8;
    const uint64_t value =
        word < words() ? words_[word].load(std::memory_order_relaxed) : uint64_t{0};
    store_le64(&bytes[at], value);
  }
}

DirtyBits::Uniform DirtyBits::uniform(uint64_t first, uint64_t length) const {
  const uint64_t begin = first * 8;
  const uint64_t end = std::min(bits(), (first + length) * 8);
  if (begin >= end || next_unlike(begin, end, false) == end) return Uniform::kClean;
  return next_unlike(begin, end, true) == end ? Uniform::kDirty : Uniform::kNo;
}

}  // namespace ringdisk
