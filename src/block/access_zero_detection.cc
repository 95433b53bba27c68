// SPDX-License-Identifier: Apache-2.0
// Writes that are looked through for zeros. A request is cut where clusters begin, and stretches of
// one kind are written or zeroed as one:
//
//   clusters   |       |       |       |       |
//   request        [dd |000000 |000000 |dd00dd |00]
//                  write        zeroes  write   zeroes: nothing to do where zeros are already,
//                                               else written
//
// Costs where there are none: data shows in the first bytes of a cluster that it is no zero. Zeros
// are read once, at the speed of memory.
#include <algorithm>

#include "block/access.h"
#include "codec/zero_detect.h"

namespace ringdisk {
namespace {

// A hole of less in a raw disk costs more than it saves; as a format's cluster less is nothing to
// it.
constexpr uint64_t kRawGranule = 64 << 10;
constexpr uint64_t kGranuleMin = 4096;

bool is_zero(const ConstBuffers& source) {
  bool zero = true;
  source.for_each([&zero](Bytes piece) { zero = zero && ringdisk::is_zero(piece); });
  return zero;
}

// The front of `source` up to the next multiple of `granule` on the disk.
size_t piece_length(GuestOffset at, size_t size, uint64_t granule) {
  const uint64_t to_boundary = granule - (at.value() & (granule - 1));
  return static_cast<size_t>(std::min<uint64_t>(to_boundary, size));
}

}  // namespace

Task<void> Access::write_detecting_zeroes(GuestOffset offset, ConstBuffers source,
                                          WriteOptions options, bool may_unmap) {
  const FormatLimits& limits = node_.format().limits();
  const uint64_t granule =
      limits.maps_directly ? kRawGranule : std::max(limits.cluster_size.value(), kGranuleMin);
  ZeroOptions zero_options;
  zero_options.may_unmap = may_unmap;
  zero_options.fua = options.fua;
  for (size_t done = 0; done < source.size();) {
    const GuestOffset at = offset + ByteCount(done);
    size_t length = piece_length(at, source.size() - done, granule);
    const bool zero = is_zero(source.slice(done, length));
    while (done + length < source.size()) {
      const size_t begin = done + length;
      const size_t next = piece_length(offset + ByteCount(begin), source.size() - begin, granule);
      if (is_zero(source.slice(begin, next)) != zero) break;
      length += next;
    }
    if (zero) {
      const GuestRange range(at, ByteCount(length));
      co_await write_zeroes(range, zero_options);
    } else {
      co_await write(at, source.slice(done, length), options);
    }
    done += length;
  }
}

}  // namespace ringdisk
