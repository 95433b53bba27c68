// SPDX-License-Identifier: Apache-2.0
// The image is opened as for any writer, so that a damaged one is refused and an unclean one
// repaired, and closed whatever became of the change.
#include "qcow2/edit/edit.h"

#include "block/close_after.h"
#include "qcow2/driver.h"
#include "qcow2/node.h"

namespace ringdisk::qcow2 {

Task<void> edit_image(Graph& graph, std::unique_ptr<SharedStorage> storage, const ImageEdit& edit) {
  OpenMode mode;
  mode.metadata_only = true;
  EditOpening opening(mode, Options(), nullptr);
  return edit_image_with_data(graph, std::move(storage), edit, std::move(opening));
}

Task<void> edit_image_with_data(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                const ImageEdit& edit, EditOpening how) {
  how.mode.no_backing = true;
  FormatOpening opening{graph.world(),         graph, std::move(storage), "", how.mode,
                        std::move(how.options)};
  const FormatDriver driver = qcow2_driver(how.encryption);
  OpenedFormat opened = co_await driver.open(std::move(opening));
  auto& node = static_cast<Qcow2Node&>(*opened.node);
  Result<void> edited = co_await node.edit(edit).result();
  co_await close_after(std::move(edited), node);
}

}  // namespace ringdisk::qcow2
