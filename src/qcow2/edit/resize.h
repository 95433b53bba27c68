// SPDX-License-Identifier: Apache-2.0
// Another size for an image's disk. Clusters beyond a smaller end have been given up before
// (jobs/resize.h), so what changes is the size, and the L1 table where it has become too short: a
// longer copy of it, then the header's fields for both, in one sector.
#pragma once

#include "block/format_admin.h"
#include "qcow2/edit/table_editor.h"

namespace ringdisk::qcow2 {

// FormatAdmin::check_new_size. kInvalid: not a multiple of 512 bytes. kLimit: the L1 table would be
// too long. kUnsupported: a version 2 image with snapshots, which record no size of their own.
Task<void> check_new_size(const World& world, SharedStorage& storage, ByteCount size);

// Errors: those of check_new_size, and of the storage.
Task<void> resize_disk(HomeParts parts, ByteCount size);

// FormatAdmin::prepare_growth: an L1 table that is longer than the disk needs yet, with nothing
// behind the disk's end that it would gain.
Task<void> prepare_growth(Graph& graph, std::unique_ptr<SharedStorage> storage, ByteCount size);
// FormatAdmin::show_grown. kInvalid: it was not prepared.
Result<void> show_grown(FormatNode& node, ByteCount size);
// FormatAdmin::resize: opens the image for writing, resizes, closes.
Task<void> resize_image(Graph& graph, std::unique_ptr<SharedStorage> storage, ByteCount size);

}  // namespace ringdisk::qcow2
