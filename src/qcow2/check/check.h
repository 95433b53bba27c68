// SPDX-License-Identifier: Apache-2.0
// Checking an image: every pointer is followed and counted, then the counts are held against the
// refcounts on the disk, and COPIED flags against refcounts of one. checker.h says how, repair.h
// what may be done about it.
#pragma once

#include <functional>
#include <optional>

#include "async/task.h"
#include "block/format_admin.h"

namespace ringdisk::qcow2 {

// FormatAdmin::check.
Task<std::optional<CheckReport>> check_image(const World& world, SharedStorage& storage,
                                             CheckOptions options, CancelToken cancel,
                                             std::function<void(CheckProgress)> on_progress);

// A check that only reads, whoever may wait for it.
inline Task<std::optional<CheckReport>> check_image(
    const World& world, SharedStorage& storage, std::function<void(CheckProgress)> on_progress) {
  return check_image(world, storage, CheckOptions(), CancelToken(), std::move(on_progress));
}

}  // namespace ringdisk::qcow2
