// SPDX-License-Identifier: Apache-2.0
// The entries of one L2 table: the loop in which a check of a large image spends its time.
#include <algorithm>

#include "base/endian.h"
#include "qcow2/check/check_lane.h"

namespace ringdisk::qcow2 {
namespace {

using Number = unsigned long long;

class TableScan {
 public:
  TableScan(CheckedImage& image, Findings& findings, uint64_t l1_index)
      : image_(image),
        findings_(findings),
        first_(image.geometry().first_cluster_of(l1_index).value()),
        table_(image.geometry().host_cluster(L1Entry(image.l1[l1_index]).table())),
        disk_clusters_(image.geometry().guest_clusters(image.header.size)),
        counts_usage_(image.l1_is_active && !findings.is_muted()) {}

  void run(Bytes table) {
    const uint64_t entries = image_.geometry().l2_entries();
    for (index_ = 0; index_ < entries; ++index_) {
      entry_ = load_l2_entry(table, index_, image_.geometry());
      if (entry_ == L2Entry::unallocated()) continue;
      if (is_in_data_file(entry_, image_.rules)) {
        scan_data_file();
        continue;
      }
      if (!scan_plain_data()) scan_other();
    }
  }

 private:
  uint64_t place() const { return first_ + index_; }

  // Data or a preallocated cluster, right in all but perhaps whom it belongs to. False: it is
  // something else.
  bool scan_plain_data() {
    constexpr uint64_t kKnown = kCopied | kOffsetMask;
    const HostOffset host = entry_.host();
    const ClusterIndex cluster = image_.geometry().host_cluster(host);
    const bool is_plain = (entry_.raw() & ~kKnown) == 0 && host.value() != 0 &&
                          (entry_.allocated() & entry_.zeros()) == 0 &&
                          host.is_aligned(image_.geometry().cluster_size()) &&
                          cluster.value() < image_.rules.data_clusters;
    if (!is_plain) return false;
    count_usage(host);
    count(cluster);
    return true;
  }

  // Nothing counts the cluster; but it has only one place there.
  void scan_data_file() {
    const HostOffset host = entry_.host();
    count_usage(host);
    const EntryVerdict verdict = judge_data_file_entry(entry_, ClusterIndex(place()), image_.rules);
    if (verdict.is_sound()) [[likely]]
      return;
    findings_.add(verdict.kind, CheckStage::kEntries, place(),
                  "guest cluster %llu: l2_entry=%llx: %s; L2 entry corrupted",
                  static_cast<Number>(place()), static_cast<Number>(entry_.raw()), verdict.fault);
  }

  // vm state lies behind the disk's end and counts, as in qemu-img; but a raw data file that was
  // cut keeps entries there that mean nothing.
  bool is_used() const {
    return counts_usage_ && (!image_.rules.data_file_is_raw || place() < disk_clusters_);
  }

  void count_usage(HostOffset host) {
    if (!is_used()) return;
    ++findings_.allocated;
    if (previous_end_ != 0 && host.value() != previous_end_) ++findings_.fragmented;
    previous_end_ = host.value() + image_.geometry().cluster_size();
  }

  // A whole cluster of the guest's. Each is in one window, so that what is noted here is noted
  // once.
  void count(ClusterIndex cluster) {
    const uint32_t flags = image_.counts.add(cluster);
    if ((flags & ReferenceCounts::kMetadata) != 0) [[unlikely]] {
      note_overlap(cluster, flags);
      note_doubt(cluster, flags);
    }
    if (!image_.l1_is_active || !image_.counts.covers(cluster)) return;
    const bool is_one = (flags & ReferenceCounts::kIsOne) != 0;
    if (is_one != entry_.is_copied()) [[unlikely]]
      note_copied(cluster);
  }

  void note_copied(ClusterIndex cluster) {
    const Findings::Unmuted here(findings_);
    findings_.add(FindingKind::kCopiedFlag, CheckStage::kCopiedFlags, place(),
                  "OFLAG_COPIED data cluster: l2_entry=%llx", static_cast<Number>(entry_.raw()));
    findings_.end_with_refcount(cluster);
  }

  // Data may be what really lies there; but a table does not say so of itself.
  void note_doubt(ClusterIndex cluster, uint32_t flags) {
    if ((flags & ReferenceCounts::kMetadata) != 0 && cluster != table_) {
      findings_.add_overlap(cluster);
    }
  }

  void note_overlap(ClusterIndex cluster, uint32_t flags) {
    FindingKind kind = FindingKind::kEntry;
    if (!image_.rules.has_plain_zeros()) kind = FindingKind::kOther;
    // New ones elsewhere leave the cluster to the guest.
    if ((flags & ReferenceCounts::kRefcountTables) != 0) kind = FindingKind::kRefcountTables;
    const Findings::Unmuted here(findings_);
    findings_.add(kind, CheckStage::kEntries, place(),
                  "guest cluster %llu: l2_entry=%llx points to cluster %llu, which holds metadata",
                  static_cast<Number>(place()), static_cast<Number>(entry_.raw()),
                  static_cast<Number>(cluster.value()));
  }

  void scan_other() {
    const EntryVerdict verdict = judge_l2_entry(entry_, image_.rules);
    if (!verdict.is_sound()) {
      findings_.add(verdict.kind, CheckStage::kEntries, place(),
                    "guest cluster %llu: offset=%llx: %s; L2 entry corrupted",
                    static_cast<Number>(place()), static_cast<Number>(entry_.raw()), verdict.fault);
    }
    if (entry_.is_compressed()) {
      scan_compressed();
      return;
    }
    if (!entry_.has_host()) return;
    count_usage(entry_.host());
    const ClusterIndex cluster = image_.geometry().host_cluster(entry_.host());
    if (cluster.value() >= image_.rules.file_clusters) {
      // No refcount is one where nothing is.
      if (image_.l1_is_active && entry_.is_copied() && !findings_.is_muted()) note_copied(cluster);
      return;
    }
    count(cluster);
    // Its data lies in both, so both are kept.
    if (!entry_.host().is_aligned(image_.geometry().cluster_size()) &&
        cluster.value() + 1 < image_.rules.file_clusters) {
      note_doubt(cluster + 1, image_.counts.add(cluster + 1));
    }
  }

  void scan_compressed() {
    if (is_used()) {
      ++findings_.compressed;
      ++findings_.allocated;
      // A compressed cluster is fragmented by its nature.
      ++findings_.fragmented;
    }
    const CompressedPlace place_of_data =
        L2Entry(entry_.raw() & ~kCopied, 0).compressed_place(image_.geometry());
    if (place_of_data.offset.value() >= kHostEnd) return;
    refer(image_, place_of_data.offset, place_of_data.length.value());
    const HostOffset last = place_of_data.offset + ByteCount(place_of_data.length.value() - 1);
    const uint64_t end = image_.geometry().host_cluster(last).value() + 1;
    for (uint64_t at = image_.geometry().host_cluster(place_of_data.offset).value(); at < end;
         ++at) {
      note_doubt(ClusterIndex(at), image_.counts.flags(ClusterIndex(at)));
    }
  }

  CheckedImage& image_;
  Findings& findings_;
  const uint64_t first_;  // guest cluster
  const ClusterIndex table_;
  const uint64_t disk_clusters_;
  const bool counts_usage_;
  uint64_t index_ = 0;
  L2Entry entry_ = L2Entry::unallocated();
  uint64_t previous_end_ = 0;  // fragments are counted table by table, as qemu-img does
};

}  // namespace

void scan_entries(CheckedImage& image, Findings& findings, Bytes table, uint64_t l1_index) {
  TableScan(image, findings, l1_index).run(table);
}

bool refer(CheckedImage& image, HostOffset at, uint64_t length) {
  if (length == 0) return true;
  const uint64_t first = at.value() >> image.geometry().cluster_bits();
  const uint64_t last = (at.value() + length - 1) >> image.geometry().cluster_bits();
  const uint64_t end = std::min(last + 1, image.rules.file_clusters);
  for (uint64_t cluster = first; cluster < end; ++cluster) image.counts.add(ClusterIndex(cluster));
  return last < image.rules.file_clusters;
}

}  // namespace ringdisk::qcow2
