// SPDX-License-Identifier: Apache-2.0
// The counters of one refcount block as they lie on the disk, 1 to 64 bits wide. Pure; the block is
// one cluster.
//
//   width 16, 32, 64   big-endian numbers                                    entry i at byte i *
//   width / 8 width 8            one byte each width 1, 2, 4      several a byte, the first one in
//   the lowest bits:     width 2: byte 0 = | e3 | e2 | e1 | e0 |
//
// Worked example, width 4: entry 5 is the upper half of byte 2.
#pragma once

#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"

namespace ringdisk::qcow2 {

// `index` lies within the block; `order` is log2 of the width in bits.
inline uint64_t load_refcount(Bytes block, uint32_t order, uint64_t index) {
  CHECK_LT(index, (uint64_t{block.size()} * 8) >> order);
  switch (order) {
    case 3:
      return static_cast<uint8_t>(block[index]);
    case 4:
      return load_be16(&block[index * 2]);
    case 5:
      return load_be32(&block[index * 4]);
    case 6:
      return load_be64(&block[index * 8]);
    default:
      break;
  }
  uint32_t width = 1u << order;
  uint64_t bit = index << order;
  return (static_cast<uint8_t>(block[bit / 8]) >> (bit % 8)) & ((1u << width) - 1);
}

// `value` fits the width.
inline void store_refcount(MutableBytes block, uint32_t order, uint64_t index, uint64_t value) {
  CHECK_LT(index, (uint64_t{block.size()} * 8) >> order);
  if (order < 6) CHECK_LT(value, uint64_t{1} << (1u << order));
  switch (order) {
    case 3:
      block[index] = static_cast<std::byte>(value);
      return;
    case 4:
      store_be16(&block[index * 2], static_cast<uint16_t>(value));
      return;
    case 5:
      store_be32(&block[index * 4], static_cast<uint32_t>(value));
      return;
    case 6:
      store_be64(&block[index * 8], value);
      return;
    default:
      break;
  }
  uint64_t bit = index << order;
  uint32_t shift = static_cast<uint32_t>(bit % 8);
  uint32_t mask = ((1u << (1u << order)) - 1) << shift;
  uint32_t rest = static_cast<uint32_t>(block[bit / 8]) & ~mask;
  block[bit / 8] = static_cast<std::byte>(rest | static_cast<uint32_t>(value) << shift);
}

}  // namespace ringdisk::qcow2
