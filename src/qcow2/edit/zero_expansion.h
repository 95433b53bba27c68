// SPDX-License-Identifier: Apache-2.0
// Making an image one that version 2 can hold, which has no zero flag: clusters that carry it
// become, in the disk's tables and in those of all snapshots,
//
//   without a backing image   unallocated ones, which read as zeros just so
//   with one                  allocated ones that hold zeros
//
// A table that snapshots share is changed once, where it lies; a cluster that is new in it is
// counted as often as the table is. Everything reads the same at every moment: zeros are durable
// before an entry points at them, and what an entry pointed at is released after it has gone. One
// edit of the image (table_editor.h); home shard only.
#pragma once

#include "block/format_admin.h"
#include "qcow2/edit/table_editor.h"

namespace ringdisk::qcow2 {

// kUnsupported: a snapshot that version 2 cannot record (of another size, or with a VM state of
// 4 GiB or more).
Task<void> check_snapshots_for_version2(HomeParts parts);

// kCancelled: some are left, and the image is as right as before.
Task<void> expand_zero_clusters(HomeParts parts, CancelToken cancel,
                                const std::function<void(AmendProgress)>& on_progress);

}  // namespace ringdisk::qcow2
