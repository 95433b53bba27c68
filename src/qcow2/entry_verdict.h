// SPDX-License-Identifier: Apache-2.0
// Judging one entry of a guest table by itself: whether it says something possible, and if not,
// what may be put in its place without losing anything. Pure. Which entries point at clusters that
// belong to others is not for here: that takes counts.
//
// What is mended (`check -r all`), because the guest reads the same before and after:
//   reserved bits              cleared
//   zeros, with a cluster that is not one (misaligned, beyond the end)      zeros without a cluster
//   data wholly beyond the end of the file, which reads as zeros            zeros
//   the COPIED flag of nothing, or of a compressed cluster                  cleared
// What is not: data at a misaligned place, compressed data beyond the end, and version 2's missing
// zero flag. What these meant cannot be known.
#pragma once

#include <optional>

#include "qcow2/check_findings.h"
#include "qcow2/header.h"
#include "qcow2/l2_entry.h"

namespace ringdisk::qcow2 {

// What decides beside the entry.
struct EntryRules {
  Geometry geometry{16, 4};
  uint64_t file_clusters = 0;
  bool has_zero_flag = true;  // version 3
  bool has_backing = false;

  // What reads as zeros where there is no cluster; nullopt: nothing does (version 2, with a backing
  // image).
  std::optional<uint64_t> plain_zeros() const {
    if (has_zero_flag) return kReadsZero;
    if (has_backing) return std::nullopt;
    return uint64_t{0};
  }
};

struct EntryVerdict {
  const char* fault = nullptr;  // null: nothing is wrong
  FindingKind kind = FindingKind::kOther;
  uint64_t mended = 0;  // kEntry: what may stand there instead

  bool is_sound() const { return fault == nullptr; }
};

EntryVerdict judge_l1_entry(uint64_t raw, const EntryRules& rules);
EntryVerdict judge_l2_entry(uint64_t raw, const EntryRules& rules);

// Whether `raw` of an L1 table names a table that can be looked at, right in all else or not.
inline bool names_table(uint64_t raw, const EntryRules& rules) {
  const L1Entry entry(raw);
  return entry.has_table() && entry.table().is_aligned(rules.geometry.cluster_size()) &&
         rules.geometry.host_cluster(entry.table()).value() < rules.file_clusters;
}

}  // namespace ringdisk::qcow2
