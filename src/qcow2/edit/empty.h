// SPDX-License-Identifier: Apache-2.0
// Giving up all that an image holds of its own: afterwards its disk reads as its backing image
// does, or as zeros. Snapshots keep what they hold. An empty L1 table, then the header, then what
// the old one led to is freed.
#pragma once

#include "block/format_admin.h"
#include "qcow2/edit/table_editor.h"

namespace ringdisk::qcow2 {

Task<void> empty_disk(HomeParts parts);

// FormatAdmin::make_empty.
Task<void> empty_image(FormatNode& node);

}  // namespace ringdisk::qcow2
