// SPDX-License-Identifier: Apache-2.0
// The rules of entry_verdict.h, for each kind of entry.
#include "qcow2/entry_verdict.h"

#include <optional>

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kL1Reserved = ~(kCopied | kOffsetMask);
// Of a standard entry; bit 0 is version 3's zero flag.
constexpr uint64_t kL2Reserved = ~(kCopied | kCompressed | kOffsetMask | kReadsZero);

EntryVerdict mend(const char* fault, uint64_t mended) {
  return {fault, FindingKind::kEntry, mended};
}

EntryVerdict judge_compressed(uint64_t raw, const EntryRules& rules) {
  const Geometry& geometry = rules.geometry;
  const L2Entry entry(raw & ~kCopied);
  if (entry.kind(geometry, true) != EntryKind::kCompressed) {
    return {"compressed data at no place", FindingKind::kLostPointer};
  }
  const CompressedPlace place = entry.compressed_place(geometry);
  const HostOffset last = place.offset + ByteCount(place.length.value() - 1);
  if (geometry.host_cluster(last).value() >= rules.file_clusters) {
    return {"compressed data beyond the end of the file", FindingKind::kLostPointer};
  }
  if ((raw & kCopied) != 0) return mend("compressed data with the COPIED flag", entry.raw());
  return {};
}

// A standard entry without reserved bits.
EntryVerdict judge_standard(uint64_t raw, const EntryRules& rules) {
  const L2Entry entry(raw);
  const bool reads_zero = (raw & kReadsZero) != 0;
  if (reads_zero && !rules.has_zero_flag) {
    return {"the zero flag, which version 2 does not have", FindingKind::kOther};
  }
  if (!entry.has_host()) {
    if (entry.is_copied()) return mend("the COPIED flag of no cluster", raw & kReadsZero);
    return {};
  }
  const bool is_aligned = entry.host().is_aligned(rules.geometry.cluster_size());
  const bool is_there = rules.geometry.host_cluster(entry.host()).value() < rules.file_clusters;
  if (is_aligned && is_there) return {};
  if (reads_zero) {
    return mend(is_aligned ? "preallocated cluster beyond the end of the file"
                           : "preallocated cluster is not properly aligned",
                kReadsZero);
  }
  if (!is_aligned) return {"data cluster is not properly aligned", FindingKind::kLostPointer};
  constexpr const char* kBeyond = "data cluster beyond the end of the file";
  const std::optional<uint64_t> zeros = rules.plain_zeros();
  if (!zeros) return {kBeyond, FindingKind::kLostPointer};
  return mend(kBeyond, *zeros);
}

}  // namespace

EntryVerdict judge_l1_entry(uint64_t raw, const EntryRules& rules) {
  const L1Entry entry(raw);
  if (!entry.has_table()) {
    if (raw == 0) return {};
    return mend("reserved bits set", 0);
  }
  if (!entry.table().is_aligned(rules.geometry.cluster_size())) {
    return {"table is not cluster aligned", FindingKind::kLostPointer};
  }
  if (!names_table(raw, rules)) {
    return {"table beyond the end of the file", FindingKind::kLostPointer};
  }
  if ((raw & kL1Reserved) != 0) return mend("reserved bits set", raw & ~kL1Reserved);
  return {};
}

EntryVerdict judge_l2_entry(uint64_t raw, const EntryRules& rules) {
  if ((raw & kCompressed) != 0) return judge_compressed(raw, rules);
  if ((raw & kL2Reserved) == 0) return judge_standard(raw, rules);
  const uint64_t cleared = raw & ~kL2Reserved;
  const EntryVerdict rest = judge_standard(cleared, rules);
  if (rest.is_sound()) return mend("reserved bits set", cleared);
  return rest;
}

}  // namespace ringdisk::qcow2
