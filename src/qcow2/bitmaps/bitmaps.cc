// SPDX-License-Identifier: Apache-2.0
// Handing edits to the image's home shard.
#include "qcow2/bitmaps/bitmaps.h"

#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/edit/edit.h"

namespace ringdisk::qcow2 {

Task<void> edit_bitmaps(Graph& graph, std::unique_ptr<SharedStorage> storage,
                        std::vector<BitmapEdit> edits) {
  const ImageEdit on_home = [&edits](HomeParts parts) { return parts.bitmaps.edit(edits); };
  co_await edit_image(graph, std::move(storage), on_home);
}

}  // namespace ringdisk::qcow2
