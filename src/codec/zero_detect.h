// SPDX-License-Identifier: Apache-2.0
// is_zero: whether memory holds nothing but zero bytes. Pure; any thread. Runs at the speed of
// memcmp (tens of GB/s in cache) and stops early: data that is not zero usually shows it in its
// first bytes.
#pragma once

#include "base/bytes.h"

namespace ringdisk {

bool is_zero(Bytes bytes);

// The length of the longest prefix of `bytes` in which every whole `granule` (a power of two; the
// last one may be cut) is of one kind, zero or not, and which kind that is. `bytes` is not empty.
struct ZeroRun {
  size_t length;
  bool zero;
};
ZeroRun find_zero_run(Bytes bytes, size_t granule);

}  // namespace ringdisk
