// SPDX-License-Identifier: Apache-2.0
// TableEditor: what changes of a whole image share (snapshots, resizing): tables read and written
// raw, refcounts of everything that an L1 table leads to raised and lowered, COPIED flags set
// right, and the header as the point from which on a change counts. Made by Home for one change and
// owned by it; home shard only, with lanes on all shards that read tables and change flags
// (table_walk.h): refcounts are the home shard's alone. No queue is in use any more, nothing of
// theirs is left to be written, and what is in memory of the active tables is not right
// afterwards: the image is closed.
//
// What is done before the header is written points at nothing durable yet; undo() takes it back. A
// crash in the middle leaves refcounts that are too high and COPIED flags that could be set;
// version 3 says so by its dirty bit, set durably before and taken off at the end.
//
// Memory: an L1 table of each kind, what a walk takes, refcount blocks up to their cache's bound.
#pragma once

#include <functional>
#include <vector>

#include "qcow2/edit/header_rewrite.h"
#include "qcow2/edit/table_lane.h"
#include "qcow2/home/write_back.h"

namespace ringdisk::qcow2 {

class BitmapKeeper;

// The parts of Home that a change works with.
struct HomeParts {
  Image& image;
  StorageAccess& storage;
  StorageAccess* data;  // the data file; null: guest data lies in `storage`
  RefcountBlocks& refcounts;
  Allocator& allocator;
  Quarantine& quarantine;
  WriteBack& write_back;
  BitmapKeeper& bitmaps;
};

// Lives on the home shard.
using ImageEdit = std::function<Task<void>(HomeParts parts)>;

class TableEditor {
 public:
  using Table = std::vector<uint64_t>;  // raw words

  explicit TableEditor(HomeParts parts) : parts_(parts), geometry_(parts.image.geometry) {}

  StorageAccess& storage() { return parts_.storage; }

  // kCorrupt where a table cannot lie there.
  Task<Table> read_table(HostOffset at, uint64_t entries);
  // The L2 table of an entry, as it lies on the disk; empty where it has none.
  Task<Table> read_l2(L1Entry entry);
  Task<void> write_table(HostOffset at, const Table& table);
  // Clusters for a table, one behind the other; none, at offset 0, for an empty one.
  Task<ClusterRun> allocate_for(uint64_t bytes);

  // Raises the refcount of everything that `l1` leads to, durable with the next flush. kLimit: one
  // is as high as it goes.
  Task<void> raise(const Table& l1);
  // After a failure: takes back what was allocated, raised and cleared, unless the header was
  // written or the disk is what failed; then refcounts that are too high stay, and the dirty bit.
  Task<void> undo();

  // Frees what nothing durable points at any more: `runs`, and everything that `l1` leads to.
  Task<void> lower(const Table& l1, const std::vector<ClusterRun>& runs);
  // Takes COPIED off `l1`, which is the active table, and the L2 tables below it, durably: before a
  // refcount that they could contradict goes up. A crash later, refcounts or not, nobody writes in
  // place to what two tables share.
  Task<void> clear_active_copied_flags(Table& l1);
  // Sets COPIED in `l1` (not written) and in the L2 tables below it (written) exactly where the
  // refcount is one.
  Task<void> correct_copied_flags(Table& l1);
  // The same for the active table, on the disk.
  Task<void> correct_active_table();

  // Everything so far to the disk.
  Task<void> flush() { return parts_.write_back.flush(); }
  // Fields of the header within one sector, durably. From then on nothing is undone.
  Task<void> commit_header(uint64_t at, Bytes bytes);
  // The same with those of encode_disk_fields: another disk, whose bitmaps are in use from now on
  // and follow to `size`.
  Task<void> commit_size(ByteCount size, Bytes fields);
  Task<void> set_dirty(bool dirty);
  // The header as a whole (header_rewrite.h), otherwise as commit_header.
  Task<void> rewrite_header(const HeaderChange& change);

 private:
  enum class Change : uint8_t { kRaise, kLower };

  // Calls use(runs), a Task<void>, for the first `clusters_max` clusters that `l1` leads to.
  template <class Use>
  Task<void> walk(const Table& l1, uint64_t clusters_max, Use& use);
  // kRaise: counts in raises_ what it raises. kLower: takes that back.
  Task<void> change_refcounts(const ClusterRuns& runs, Change change);
  Result<void> change_part(ClusterRun part, Change change);
  Error refuse_raise(ClusterIndex cluster) const;
  Task<void> lower_runs(const ClusterRuns& runs);
  Result<void> lower_part(ClusterRun part);
  void release(ClusterRun run);
  bool much_is_released() const;
  Task<void> load_counters(ClusterIndex cluster);
  Task<void> give_way(uint64_t clusters);
  Task<void> free_released();
  Task<void> take_back();
  Task<void> write_header(uint64_t at, Bytes bytes);

  const HomeParts parts_;
  const Geometry geometry_;

  bool is_marked_ = false;     // the change has begun
  bool is_committed_ = false;  // the header was written
  bool is_cleared_ = false;    // COPIED flags were taken off
  // What nothing durable points at yet.
  std::vector<ClusterRun> allocated_;
  Table raised_table_;
  uint64_t raises_ = 0;  // of what raised_table_ leads to, from the first on

  // What was released and is not freed yet.
  uint64_t released_runs_ = 0;
  uint64_t released_blocks_ = 0;  // changes of the refcount block from run to run
  uint64_t last_released_block_ = 0;
  uint64_t changed_clusters_ = 0;  // since others of the shard had their turn
};

}  // namespace ringdisk::qcow2
