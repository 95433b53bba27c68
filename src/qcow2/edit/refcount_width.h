// SPDX-License-Identifier: Apache-2.0
// Another width for an image's refcounts: table and blocks are written anew behind all else, with
// the counts that the old ones have, less what counted those themselves. One write of the header's
// first sector switches table, its length and the width at once, so a crash leaves the image as it
// was, or as it is to be; neither has a leak, since nothing counts what lies behind the end.
//
//   | header … old table … old blocks … | new table | new blocks |
//                                       first       first + table_clusters
//
// The image is closed to everybody else and sound (its last writer closed it). Memory: the two
// tables, at most 8 MiB each, two blocks, and the places of the old blocks.
#pragma once

#include <functional>

#include "async/cancel.h"
#include "block/format_admin.h"
#include "runtime/world.h"

namespace ringdisk::qcow2 {

// kLimit: a cluster is shared more often than the new width counts, or the table would be too
// large. kNoSpace: the storage cannot grow. kCancelled: nothing has changed.
Task<void> change_refcount_width(const World& world, SharedStorage& storage,
                                 uint32_t refcount_order, CancelToken cancel,
                                 const std::function<void(AmendProgress)>& on_progress);

}  // namespace ringdisk::qcow2
