// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps as users change them. How they are kept: bitmap_keeper.h.
#pragma once

#include "block/format_admin.h"

namespace ringdisk::qcow2 {

// FormatAdmin::edit_bitmaps: opens the image for writing, edits, closes.
Task<void> edit_bitmaps(Graph& graph, std::unique_ptr<SharedStorage> storage,
                        std::vector<BitmapEdit> edits);

}  // namespace ringdisk::qcow2
