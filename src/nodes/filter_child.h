// SPDX-License-Identifier: Apache-2.0
// What the options of all filters have in common: the child (file.driver=…, file.filename=…), the
// operations they act on and whether before or after.
#pragma once

#include <memory>
#include <string>

#include "block/graph.h"
#include "nodes/storage_filter.h"

namespace ringdisk {

// Opens the storage that the group `file.` of `options` describes ("file" where it names no
// driver). The filter has taken its own options before: a key that is left over is an error.
// `filter` is the filter's name.
Task<std::unique_ptr<SharedStorage>> open_filter_child(const World& world, const Drivers& drivers,
                                                       std::string filter, Options options,
                                                       OpenMode mode);

// operations=read+write; all if not given.
Result<StorageOperations> take_operations(Options& options, Diagnostics& diagnostics);
// when=before (the default) or when=after.
Result<bool> take_is_after(Options& options, Diagnostics& diagnostics);

}  // namespace ringdisk
