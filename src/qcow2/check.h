// SPDX-License-Identifier: Apache-2.0
// Checking an image: every pointer is followed once and counted, then the counts are held against
// the refcounts on the disk. Reads only.
//
//   pass 1  header, refcount table and blocks, L1 and L2 tables of the active image and of each
//           snapshot, snapshot table, bitmaps: references are counted, entries that break the
//           specification are corruptions
//   pass 2  each cluster: refcount < references: corruption; refcount > references: leak
//   pass 3  COPIED flags of the active image: set exactly where the refcount is one
#pragma once

#include <functional>
#include <optional>

#include "async/task.h"
#include "block/format_admin.h"

namespace ringdisk::qcow2 {

// FormatAdmin::check.
Task<std::optional<CheckReport>> check_image(const World& world, SharedStorage& storage,
                                             std::function<void(CheckProgress)> on_progress);

}  // namespace ringdisk::qcow2
