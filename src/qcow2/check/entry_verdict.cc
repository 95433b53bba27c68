// SPDX-License-Identifier: Apache-2.0
// The rules of entry_verdict.h, for each kind of entry.
#include "qcow2/check/entry_verdict.h"

#include <optional>

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kL1Reserved = ~(kCopied | kOffsetMask);
// Of a standard entry; bit 0 is version 3's zero flag.
constexpr uint64_t kL2Reserved = ~(kCopied | kCompressed | kOffsetMask | kReadsZero);

constexpr const char* kTwoThings = "subclusters that are data and zeros at once";

EntryVerdict mend(const char* fault, L2Entry mended) {
  return {fault, FindingKind::kEntry, mended};
}
EntryVerdict mend_l1(const char* fault, uint64_t mended) { return mend(fault, L2Entry(mended, 0)); }

L2Entry without_bits(L2Entry entry, uint64_t bits) {
  return L2Entry(entry.raw() & ~bits, entry.bitmap());
}

EntryVerdict judge_compressed(L2Entry given, const EntryRules& rules) {
  const Geometry& geometry = rules.geometry;
  const L2Entry entry(given.raw() & ~kCopied, 0);
  if (entry.kind(geometry, true) != EntryKind::kCompressed) {
    return {"compressed data at no place", FindingKind::kLostPointer};
  }
  const CompressedPlace place = entry.compressed_place(geometry);
  const HostOffset last = place.offset + ByteCount(place.length.value() - 1);
  if (geometry.host_cluster(last).value() >= rules.file_clusters) {
    return {"compressed data beyond the end of the file", FindingKind::kLostPointer};
  }
  if (given.is_copied()) return mend("compressed data with the COPIED flag", entry);
  if (given.bitmap() != 0) return mend("compressed data with a subcluster bitmap", entry);
  return {};
}

// The cluster that a standard entry without reserved bits names.
EntryVerdict judge_place(L2Entry entry, const EntryRules& rules) {
  const bool has_data =
      rules.geometry.has_subclusters() ? entry.allocated() != 0 : (entry.raw() & kReadsZero) == 0;
  const bool is_aligned = entry.host().is_aligned(rules.geometry.cluster_size());
  const uint64_t end = has_data ? rules.data_clusters : rules.file_clusters;
  const bool is_there = rules.geometry.host_cluster(entry.host()).value() < end;
  if (is_aligned && is_there) return {};
  const std::optional<L2Entry> zeros = rules.plain_zeros(entry);
  if (!has_data) {
    return mend(is_aligned ? "preallocated cluster beyond the end of the file"
                           : "preallocated cluster is not properly aligned",
                *zeros);
  }
  if (!is_aligned) return {"data cluster is not properly aligned", FindingKind::kLostPointer};
  constexpr const char* kBeyond = "data cluster beyond the end of the file";
  if (!zeros || rules.is_encrypted) return {kBeyond, FindingKind::kLostPointer};
  return mend(kBeyond, *zeros);
}

// A standard entry without reserved bits.
EntryVerdict judge_standard(L2Entry entry, const EntryRules& rules) {
  const bool reads_zero = (entry.raw() & kReadsZero) != 0;
  if (reads_zero && !rules.has_zero_flag) {
    return {"the zero flag, which version 2 does not have", FindingKind::kOther};
  }
  if (entry.has_host()) {
    const EntryVerdict place = judge_place(entry, rules);
    if (!place.is_sound()) return place;
  }
  if ((entry.allocated() & entry.zeros()) != 0) {
    const bool cannot_be_data = !entry.has_host() && (entry.allocated() & ~entry.zeros()) == 0;
    if (!cannot_be_data) return {kTwoThings, FindingKind::kUnclear};
    return mend(kTwoThings, L2Entry::unallocated().with_subclusters(0, entry.zeros()));
  }
  if (entry.has_host()) return {};
  if (entry.allocated() != 0) return {"allocated subclusters of no cluster", FindingKind::kOther};
  if (entry.is_copied()) return mend("the COPIED flag of no cluster", without_bits(entry, kCopied));
  return {};
}

}  // namespace

EntryVerdict judge_l1_entry(uint64_t raw, const EntryRules& rules) {
  const L1Entry entry(raw);
  if (!entry.has_table()) {
    if (raw == 0) return {};
    return mend_l1("reserved bits set", 0);
  }
  if (!entry.table().is_aligned(rules.geometry.cluster_size())) {
    return {"table is not cluster aligned", FindingKind::kLostPointer};
  }
  if (!names_table(raw, rules)) {
    return {"table beyond the end of the file", FindingKind::kLostPointer};
  }
  if ((raw & kL1Reserved) != 0) return mend_l1("reserved bits set", raw & ~kL1Reserved);
  return {};
}

EntryVerdict judge_data_file_entry(L2Entry given, ClusterIndex guest, const EntryRules& rules) {
  const bool has_subclusters = rules.geometry.has_subclusters();
  const uint64_t reserved = has_subclusters ? kL2Reserved | kReadsZero : kL2Reserved;
  const L2Entry entry = without_bits(given, reserved);
  const HostOffset own = rules.geometry.host_offset(guest);
  if (entry.host() != own) {
    constexpr const char* kElsewhere = "not its own place in the data file";
    const bool has_data =
        has_subclusters ? entry.allocated() != 0 : (entry.raw() & kReadsZero) == 0;
    if (!has_data) return mend(kElsewhere, *rules.plain_zeros(entry));
    if (!rules.data_file_is_raw) return {kElsewhere, FindingKind::kOther};
    return mend(kElsewhere, L2Entry(own.value() | kCopied, entry.bitmap()));
  }
  if ((entry.allocated() & entry.zeros()) != 0) {
    if (!rules.data_file_is_raw) return {kTwoThings, FindingKind::kOther};
    return mend(kTwoThings,
                entry.with_subclusters(entry.allocated(), entry.zeros() & ~entry.allocated()));
  }
  if (entry.raw() != given.raw()) return mend("reserved bits set", entry);
  return {};
}

EntryVerdict judge_l2_entry(L2Entry entry, const EntryRules& rules) {
  if (entry.is_compressed()) return judge_compressed(entry, rules);
  // Extended entries have their zero flags in the bitmap.
  const uint64_t reserved =
      rules.geometry.has_subclusters() ? kL2Reserved | kReadsZero : kL2Reserved;
  if ((entry.raw() & reserved) == 0) return judge_standard(entry, rules);
  const L2Entry cleared = without_bits(entry, reserved);
  const EntryVerdict rest = judge_standard(cleared, rules);
  if (rest.is_sound()) return mend("reserved bits set", cleared);
  return rest;
}

}  // namespace ringdisk::qcow2
