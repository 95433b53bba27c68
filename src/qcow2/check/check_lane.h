// SPDX-License-Identifier: Apache-2.0
// CheckLane: the part that one shard has in a check. Lanes of all shards take pieces of one stage
// (blocks of refcounts, tables of one L1 table) from a common cursor, so that no shard waits for
// another's large piece; the driver (checker.h) waits for all of them between two stages.
//
// CheckedImage is what they share: the driver's, and constant while lanes run but for what says
// otherwise.
#pragma once

#include <atomic>
#include <functional>
#include <utility>
#include <vector>

#include "async/task.h"
#include "block/storage_access.h"
#include "qcow2/check/check_findings.h"
#include "qcow2/check/entry_verdict.h"
#include "qcow2/check/reference_counts.h"
#include "runtime/buffer.h"

namespace ringdisk {
class Shard;
}

namespace ringdisk::qcow2 {

enum class LaneStage : uint8_t {
  kLoadRefcounts,  // which clusters have the refcount one
  kScanTables,     // the L2 tables that `l1` names
  kCompareRefcounts,
};

struct CheckedImage {
  explicit CheckedImage(SharedStorage& shared_storage) : storage(shared_storage) {}

  SharedStorage& storage;
  Header header;
  EntryRules rules;
  std::vector<uint64_t> refcount_table;  // what points at no block that can be read is 0
  std::vector<uint64_t> l1;              // the one being scanned
  bool l1_is_active = false;
  bool is_muted = false;  // findings of this window's entries were told before
  uint64_t pieces_end = 0;

  // any shard
  ReferenceCounts counts;
  std::atomic<uint64_t> next_piece{0};
  std::atomic<uint64_t> done{0};  // for progress
  std::atomic<bool> stopped{false};

  const Geometry& geometry() const { return rules.geometry; }
  bool is_stopped() const { return stopped.load(std::memory_order_relaxed); }
  bool has_block(uint64_t block) const {
    return block < refcount_table.size() && refcount_table[block] != 0;
  }
};

class CheckLane {
 public:
  // On the shard that it belongs to, as `storage` does.
  CheckLane(CheckedImage& image, StorageAccess& storage, Shard& shard);

  // As much of a stage as the other lanes leave.
  Task<void> run(LaneStage stage);
  Findings take_findings() { return std::exchange(findings_, Findings()); }
  // Called on this shard whenever a piece is done.
  void set_on_piece(std::function<void()> on_piece) { on_piece_ = std::move(on_piece); }

 private:
  Task<void> work(LaneStage stage);
  Task<void> load_refcounts(uint64_t block, MutableBytes buffer);
  Task<void> scan_table(uint64_t l1_index, MutableBytes buffer);
  Task<void> compare_refcounts(uint64_t block, MutableBytes buffer);

  void check_copied_of_table(uint64_t l1_index);
  void compare_one(ClusterIndex cluster, uint64_t refcount);
  void compare_block_without_counters(uint64_t block);

  CheckedImage& image_;
  StorageAccess& storage_;
  Shard& shard_;
  Findings findings_;
  std::function<void()> on_piece_;
};

// Goes over the entries of one L2 table: counts what they point to, notes what is wrong.
void scan_entries(CheckedImage& image, Findings& findings, Bytes table, uint64_t l1_index);

// Counts a reference to each cluster of the file that [at, at + length) touches. False where some
// of them are beyond its end.
bool refer(CheckedImage& image, HostOffset at, uint64_t length);

}  // namespace ringdisk::qcow2
