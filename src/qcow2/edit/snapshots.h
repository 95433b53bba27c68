// SPDX-License-Identifier: Apache-2.0
// Internal snapshots as users name and change them. How an edit is made: snapshot_editor.h.
#pragma once

#include "block/format_admin.h"
#include "qcow2/layout/snapshot_table.h"

namespace ringdisk::qcow2 {

// The one that `wanted` names: its id or name, or "snapshot.id=ID,snapshot.name=NAME" with one or
// both. kNotFound, with a note.
Result<size_t> choose_snapshot(const SnapshotTable& table, const std::string& wanted,
                               Precedence first, Diagnostics& diagnostics, uint32_t node);

// FormatAdmin::edit_snapshots: opens the image for writing, edits, closes.
Task<void> edit_snapshots(Graph& graph, std::unique_ptr<SharedStorage> storage, SnapshotEdit edit);

}  // namespace ringdisk::qcow2
