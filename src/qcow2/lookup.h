// SPDX-License-Identifier: Apache-2.0
// Lookup: where guest bytes are, from the tables in memory, on any shard, without a lock and
// without suspending. Cost: one pin (two locked stores), then a few loads for each cluster that the
// answer covers.
#pragma once

#include "qcow2/image.h"

namespace ringdisk::qcow2 {

class Lookup {
 public:
  // `shard` is the index of the shard that calls.
  Lookup(Image& image, uint32_t shard) : image_(image), shard_(shard) {}

  // As FormatQueue::try_map, but for the pin: `pinned` says whether one of `generation` was kept
  // for `mapping`. With MapPurpose::kWrite a cluster that must not be written where it lies counts
  // as kAbsent.
  bool try_map(GuestRange range, MapPurpose purpose, Mapping& mapping, bool& pinned,
               uint32_t& generation);

 private:
  // Entries looked at in one lookup, so that a lookup stays short (about 100 us at the most).
  static constexpr uint64_t kEntriesMax = 64 * 1024;

  // A run of units (clusters or subclusters) of one kind, contiguous where it has a place.
  struct Run {
    MappingKind kind = MappingKind::kAbsent;
    bool has_host = false;
    uint64_t host = 0;  // of the first unit; of a compressed cluster's stream
    uint64_t units = 0;
  };
  bool classify(L2Entry entry, MapPurpose purpose, Run& one) const;
  bool extend(Run& run, const Run& one) const;
  // Extends `run` by what one table (or its absence) says of the units [first, end); false: the run
  // ends there.
  bool extend_in_table(uint64_t first, uint64_t end, MapPurpose purpose, Run& run,
                       uint64_t& looked_at) const;
  bool extend_in_slice(const Slice& slice, uint64_t index, uint64_t stop, MapPurpose purpose,
                       Run& run) const;
  Run find_run(uint64_t first, uint64_t end, MapPurpose purpose) const;

  // Images with subclusters: lookup_subclusters.cc.
  bool extend_in_extended_slice(const Slice& slice, uint64_t first, uint64_t end,
                                MapPurpose purpose, Run& run) const;
  Run subclusters_at(L2Entry entry, uint32_t index, MapPurpose purpose) const;

  Image& image_;
  const uint32_t shard_;
};

}  // namespace ringdisk::qcow2
