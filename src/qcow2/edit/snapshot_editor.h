// SPDX-License-Identifier: Apache-2.0
// SnapshotEditor: creates, applies and deletes internal snapshots. One edit, then the image is
// closed (table_editor.h says why).
//
// A refcount is the number of pointers at a cluster, counted once for every L1 table that leads
// there, so a snapshot's table raises all that it leads to by one.
//
//   create  take COPIED off the active tables; flush; raise what they lead to; copy of the L1 table
//           and new snapshot table; flush; the header points at the new one; the old one is freed
//   apply   raise what the snapshot's table leads to; copy of it; flush; the header points at the
//           copy as the active table, and enabled bitmaps are marked where the two differ; lower
//           what the old active table led to
//   delete  snapshot table without it; flush; header; lower what its table led to; flush; COPIED
//           back on where nobody shares a cluster any more
#pragma once

#include <string>
#include <vector>

#include "block/format_admin.h"
#include "qcow2/edit/table_editor.h"
#include "qcow2/layout/snapshot_table.h"

namespace ringdisk::qcow2 {

class SnapshotEditor {
 public:
  explicit SnapshotEditor(HomeParts parts)
      : image_(parts.image),
        geometry_(parts.image.geometry),
        bitmaps_(parts.bitmaps),
        tables_(parts) {}

  // kNotFound: no snapshot of that id or name. kLimit: too many snapshots, or a refcount cannot go
  // higher. kCorrupt: the tables are damaged. On every error that is not one of I/O the image is as
  // it was.
  Task<void> run(const SnapshotEdit& edit);
  // Gives every entry the fields that version 3 asks for, which version 2 may do without.
  Task<void> complete_table();

 private:
  using Table = TableEditor::Table;

  Task<void> perform(const SnapshotEdit& edit);
  Task<void> create(const SnapshotEdit& edit);
  Task<void> apply(const Snapshot& snapshot);
  Task<void> mark_changes(const Table& before, const Table& after, ByteCount size);
  Task<void> remove(size_t index);
  Task<Table> held_by(const Snapshot& snapshot);
  Task<void> rewrite_table();
  std::string unused_id() const;
  // Gives the clusters of the old table, to be freed.
  Task<ClusterRun> switch_snapshot_table(const std::vector<Snapshot>& snapshots);

  const Image& image_;
  const Geometry geometry_;
  BitmapKeeper& bitmaps_;
  TableEditor tables_;
  SnapshotTable snapshots_;  // as they are on the disk
};

}  // namespace ringdisk::qcow2
