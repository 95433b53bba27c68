// SPDX-License-Identifier: Apache-2.0
// Repair: mends what a check has found. Lives in one coroutine, on one shard, beside the Checker
// whose windows and counts it uses. Each step is durable before the next, and none makes the image
// worse than the one before, so the power may fail, or a write, between any two:
//
//   0  the dirty bit (version 3): what is here is being repaired
//   1  entries of guest tables that lose nothing by it        (entry_verdict.h)
//   2  refcount table and blocks, where they are broken: new ones behind all else, then the
//      header's pointer, in one sector
//   3  refcounts that are too low are raised                  nobody frees what is in use
//   4  COPIED flags of what is shared are cleared             nobody writes it in place
//   5  refcounts that are too high are lowered                leaks are free
//   6  COPIED flags of what is not shared are set
//   7  a snapshot table whose entries lack fields of version 3: a new one behind all else, counted
//      since 3, then the header's pointer, in one sector; then 3 to 6 again, which free the old one
//   8  the dirty and the corrupt bit go, when a second look finds nothing
//
// -r leaks does 5, and 4 and 6 where nothing else is wrong. What cannot be understood stays as it
// is, and so does everything it may have pointed to: with a lost pointer about, leaks are kept, and
// a table that has one is not written to; neither refcount tables nor a snapshot table are built
// anew, because a pointer beyond the end would then point at them.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "qcow2/check/checker.h"

namespace ringdisk::qcow2 {

class Repair {
 public:
  // `checker` has done its check, and finds nothing else while this lives.
  Repair(Checker& checker, CheckRepair mode);

  // Whether there is anything that can be done.
  bool has_work() const;
  // Only -r all may do what is needed.
  bool must_rebuild_but_may_not() const;
  Task<void> run();

  // What the check had found, and what was done that it does not tell.
  Findings& found() { return found_; }
  Findings& done() { return done_; }
  bool keeps_leaks() const { return keeps_leaks_; }
  bool rebuilds() const {
    return found_.count(FindingKind::kRefcountTables) != 0 ||
           (new_snapshots_ && new_snapshots_->lacks_blocks);
  }
  // Known once it ran.
  bool renews_snapshot_table() const { return new_snapshots_.has_value(); }

  // Step 8, after a second look.
  static Task<void> mark_sound(StorageAccess& storage, const Header& header);

 private:
  enum class Flags : uint8_t { kClear, kSet };
  enum class Refcounts : uint8_t { kRaise, kLower };
  // The snapshot table that takes the old one's place, and where it will lie.
  struct NewSnapshotTable {
    std::vector<std::byte> bytes;
    ClusterIndex first;
    uint64_t clusters = 0;
    bool lacks_blocks = false;  // no refcount block counts its clusters yet
    ClusterIndex end() const { return first + clusters; }
  };

  Task<void> mark_dirty();
  Task<void> restore_dirty();

  // entries
  uint64_t entries_to_mend() const {
    return found_.count(FindingKind::kEntry) + found_.count(FindingKind::kUnclear);
  }
  Task<void> mend_entries();
  Task<void> mend_entries_of_window(bool judges);
  // `judges`: by what they say themselves; in one window only.
  Task<void> mend_l1_table(HostOffset at, bool judges);
  Task<void> mend_l2_table(HostOffset at, uint64_t l1_index, bool judges, MutableBytes table);
  // By what it says itself.
  Task<L2Entry> mended_entry(L2Entry entry, EntryVerdict verdict);
  // One that says two things, where both come to the same; otherwise as it is.
  Task<L2Entry> settled_entry(L2Entry entry);
  bool is_claimed(L2Entry entry) const;
  Task<L2Entry> unclaimed_entry(L2Entry entry, HostOffset table);
  Task<bool> is_sound_table(ClusterIndex table);
  bool can_write_table(Bytes table, HostOffset at, uint64_t l1_index) const;
  // Into `table`; false: it must not be written, nothing in it is to be mended.
  Task<bool> read_table_to_mend(HostOffset at, uint64_t l1_index, MutableBytes table);
  void note_mended(const char* what, uint64_t number, uint64_t before, uint64_t after);

  // snapshot table
  bool may_renew_snapshot_table() const {
    return mode_ == CheckRepair::kAll && !keeps_leaks_ &&
           found_.count(FindingKind::kSnapshotEntry) != 0;
  }
  void plan_snapshot_table();
  Task<void> switch_snapshot_tables();
  // The cluster behind all there is.
  ClusterIndex first_behind_all() const;
  bool has_room_until(ClusterIndex end) const;

  // refcount tables
  struct NewTables {
    std::vector<uint64_t> blocks;  // which clusters they count, ascending
    uint64_t first = 0;            // cluster; the table, then the blocks
    uint64_t table_clusters = 0;
    uint64_t clusters() const { return table_clusters + blocks.size(); }
  };
  Task<void> rebuild();
  Task<std::vector<uint64_t>> find_blocks_needed();
  Task<void> note_blocks_needed(std::vector<uint64_t>& needed);
  Task<NewTables> lay_out(std::vector<uint64_t> blocks);
  Task<void> write_new_blocks(const NewTables& tables);
  Task<void> write_blocks_of_window(const NewTables& tables);
  Task<void> write_new_block(uint64_t block, HostOffset at);
  Task<void> write_new_table(const NewTables& tables);
  Task<void> switch_tables(const NewTables& tables);

  // refcounts and flags
  Task<void> mend_windows(Counting counting);
  Task<void> mend_window();
  Task<void> mend_refcounts(Refcounts direction);
  Task<void> mend_block(uint64_t block, Refcounts direction);
  Task<void> mend_flags(Flags which);
  Task<void> mend_flags_of_l1(HostOffset at, Flags which);
  Task<void> mend_flags_of_table(HostOffset at, uint64_t l1_index, Flags which, MutableBytes table);
  bool is_flag_to_change(ClusterIndex cluster, bool is_copied, Flags which) const;
  uint64_t wanted_refcount(uint64_t references, uint64_t refcount) const;
  Task<void> flush_written();

  Task<void> write_l1_entry(HostOffset table, uint64_t index);
  // The entries of a table in memory that were changed, from the first to the last of them.
  struct ChangedEntries {
    uint64_t first = ~uint64_t{0}, last = 0;
    void add(uint64_t index) {
      first = std::min(first, index);
      last = std::max(last, index);
    }
  };
  // Into the table at `at`, in one write; nothing where nothing was changed.
  Task<void> write_entries(HostOffset at, Bytes table, ChangedEntries changed);

  const Geometry& geometry() const { return checker_.image().geometry(); }

  Checker& checker_;
  const CheckRepair mode_;
  Findings found_;
  Findings done_;
  const bool keeps_leaks_;
  std::optional<NewSnapshotTable> new_snapshots_;
  bool mends_flags_ = true;
  bool has_written_ = false;
  bool was_dirty_ = false;
};

}  // namespace ringdisk::qcow2
