// SPDX-License-Identifier: Apache-2.0
// One change of an image as a whole, from open to close.
#pragma once

#include "block/graph.h"
#include "qcow2/edit/table_editor.h"

namespace ringdisk::qcow2 {

// Opens the image in `storage` alone for writing, makes the change on its home shard (this one),
// closes.
Task<void> edit_image(Graph& graph, std::unique_ptr<SharedStorage> storage, const ImageEdit& edit,
                      OpenMode mode = OpenMode());

}  // namespace ringdisk::qcow2
