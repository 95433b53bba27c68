// SPDX-License-Identifier: Apache-2.0
// FormatAdmin::compact: opens an image for writing, compacts it, closes it.
#pragma once

#include "qcow2/compact/compactor.h"

namespace ringdisk::qcow2 {

Task<CompactReport> compact_image(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                  CompactLimits limits, CancelToken cancel,
                                  std::function<void(CompactProgress)> on_progress);

}  // namespace ringdisk::qcow2
