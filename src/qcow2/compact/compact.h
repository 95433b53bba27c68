// SPDX-License-Identifier: Apache-2.0
// FormatAdmin::compact: opens an image for writing, compacts it, closes it. `encryption` opens one
// that is encrypted; null: those are refused.
#pragma once

#include "qcow2/compact/compactor.h"

namespace ringdisk {
class DataEncryption;
}

namespace ringdisk::qcow2 {

Task<CompactReport> compact_image(Graph& graph, std::unique_ptr<SharedStorage> storage,
                                  CompactLimits limits, CompactRequest request,
                                  const DataEncryption* encryption);

}  // namespace ringdisk::qcow2
