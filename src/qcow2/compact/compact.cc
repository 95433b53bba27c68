// SPDX-License-Identifier: Apache-2.0
// The image's content does not change, so what its features promise of it stays true (keep_clean).
#include "qcow2/compact/compact.h"

#include "qcow2/edit/edit.h"

namespace ringdisk::qcow2 {
namespace {

Task<void> compact_on_home(HomeParts parts, CompactLimits limits, const CompactRequest& request,
                           CompactReport& report) {
  Compactor compactor(parts, limits, request.cancel, request.on_progress);
  report = co_await compactor.run();
}

}  // namespace

Task<CompactReport> compact_image(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                  CompactLimits limits, CompactRequest request,
                                  const DataEncryption* encryption) {
  CompactReport report;
  const ImageEdit compact = [&](HomeParts parts) {
    return compact_on_home(parts, limits, request, report);
  };
  OpenMode mode;
  mode.keep_clean = true;
  EditOpening opening(mode, std::move(request.options), encryption);
  co_await edit_image_with_data(graph, std::move(storage), compact, std::move(opening));
  co_return std::move(report);
}

}  // namespace ringdisk::qcow2
