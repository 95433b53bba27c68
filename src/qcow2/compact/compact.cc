// SPDX-License-Identifier: Apache-2.0
// The image's content does not change, so what its features promise of it stays true (keep_clean).
#include "qcow2/compact/compact.h"

#include "qcow2/edit/edit.h"

namespace ringdisk::qcow2 {
namespace {

Task<void> compact_on_home(HomeParts parts, CompactLimits limits, CancelToken cancel,
                           const std::function<void(CompactProgress)>& on_progress,
                           CompactReport& report) {
  Compactor compactor(parts, limits, cancel, on_progress);
  report = co_await compactor.run();
}

}  // namespace

Task<CompactReport> compact_image(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                  CompactLimits limits, CancelToken cancel,
                                  std::function<void(CompactProgress)> on_progress) {
  CompactReport report;
  const ImageEdit compact = [&](HomeParts parts) {
    return compact_on_home(parts, limits, cancel, on_progress, report);
  };
  OpenMode mode;
  mode.keep_clean = true;
  co_await edit_image(graph, std::move(storage), compact, mode);
  co_return std::move(report);
}

}  // namespace ringdisk::qcow2
