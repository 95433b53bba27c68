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
//   the subcluster bitmap of a compressed cluster                           cleared
//   subclusters that are data and zeros at once, of no cluster              zeros
//   in a raw data file, any other place than its own, or zeros over data    its own, data
//   in another data file zeros with another place than their own            zeros without a place
// What is not: data at a misaligned place, compressed data beyond the end, enciphered data that is
// not all there (which reads as an error, not as zeros), version 2's missing zero flag, data of no
// cluster, data at another's place in a data file. What these meant cannot be known. Subclusters
// that are data and zeros at once are mended where the data are zeros (kUnclear; repair.h looks).
#pragma once

#include <optional>

#include "qcow2/check/check_findings.h"
#include "qcow2/layout/data_file_entry.h"
#include "qcow2/layout/header.h"
#include "qcow2/layout/l2_entry.h"

namespace ringdisk::qcow2 {

// What decides beside the entry.
struct EntryRules {
  Geometry geometry{16, 4};
  uint64_t file_clusters = 0;  // a part of one counts
  uint64_t data_clusters = 0;  // into which an entry of data may point: not there in part, if that
                               // would be noise
  bool is_encrypted = false;
  bool has_zero_flag = true;  // version 3
  bool has_backing = false;
  bool has_data_file = false;  // standard entries name places in it, and nothing counts those
  bool data_file_is_raw = false;

  // What stands for zeros without a cluster where `entry` had data; nullopt: nothing does (version
  // 2, with a backing image). Subclusters that had none stay as they are.
  std::optional<L2Entry> plain_zeros(L2Entry entry) const {
    if (geometry.has_subclusters()) {
      return L2Entry::unallocated().with_subclusters(0, entry.zeros() | entry.allocated());
    }
    if (has_zero_flag) return L2Entry::zero();
    if (has_backing) return std::nullopt;
    return L2Entry::unallocated();
  }
  bool has_plain_zeros() const { return has_zero_flag || !has_backing; }
};

struct EntryVerdict {
  const char* fault = nullptr;  // null: nothing is wrong
  FindingKind kind = FindingKind::kOther;
  L2Entry mended = L2Entry::unallocated();  // kEntry: what may stand there instead (L1: raw())

  bool is_sound() const { return fault == nullptr; }
};

EntryVerdict judge_l1_entry(uint64_t raw, const EntryRules& rules);
EntryVerdict judge_l2_entry(L2Entry entry, const EntryRules& rules);
// Of guest cluster `guest`, an entry for which is_in_data_file.
EntryVerdict judge_data_file_entry(L2Entry entry, ClusterIndex guest, const EntryRules& rules);

inline bool is_in_data_file(L2Entry entry, const EntryRules& rules) {
  return rules.has_data_file && names_data_file(entry);
}
inline EntryVerdict judge_guest_entry(L2Entry entry, ClusterIndex guest, const EntryRules& rules) {
  return is_in_data_file(entry, rules) ? judge_data_file_entry(entry, guest, rules)
                                       : judge_l2_entry(entry, rules);
}

// Whether `raw` of an L1 table names a table that can be looked at, right in all else or not.
inline bool names_table(uint64_t raw, const EntryRules& rules) {
  const L1Entry entry(raw);
  return entry.has_table() && entry.table().is_aligned(rules.geometry.cluster_size()) &&
         rules.geometry.host_cluster(entry.table()).value() < rules.file_clusters;
}

}  // namespace ringdisk::qcow2
