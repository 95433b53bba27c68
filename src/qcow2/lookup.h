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

  // A run of clusters of one kind, contiguous where it has a place.
  struct Run {
    MappingKind kind = MappingKind::kAbsent;
    bool has_host = false;
    uint64_t host = 0;  // of the first cluster
    uint64_t clusters = 0;
  };
  bool classify(L2Entry entry, MapPurpose purpose, Run& one) const;
  bool extend(Run& run, const Run& one) const;
  // Extends `run` by what one table (or its absence) says from `cluster` on, up to `end`; false:
  // the run ends there.
  bool extend_in_table(ClusterIndex cluster, uint64_t end, MapPurpose purpose, Run& run,
                       uint64_t& looked_at) const;
  Run find_run(ClusterIndex first, uint64_t end, MapPurpose purpose) const;

  Image& image_;
  const uint32_t shard_;
};

}  // namespace ringdisk::qcow2
