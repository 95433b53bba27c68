// SPDX-License-Identifier: Apache-2.0
// Reading what an image says of itself, without opening any other file: its header, and the table
// of its snapshots.
#pragma once

#include "async/task.h"
#include "block/format_admin.h"
#include "block/storage_access.h"
#include "qcow2/layout/header.h"
#include "qcow2/layout/snapshot_table.h"

namespace ringdisk {
class DataEncryption;
}

namespace ringdisk::qcow2 {

// The header, right in itself. Whether its features are known and its places exist is for the
// caller to ask. An image without a refcount table is for a check alone, which can give it one.
Task<Header> read_header(StorageAccess& storage, Diagnostics& diagnostics);
Task<Header> read_header_for_check(StorageAccess& storage, Diagnostics& diagnostics);

// All snapshots; empty where there are none.
Task<SnapshotTable> read_snapshots(StorageAccess& storage, const Header& header,
                                   Diagnostics& diagnostics);

// FormatAdmin::describe.
// `encryption` may be null: then what it would tell is left out.
Task<ImageDescription> describe_image(const World& world, SharedStorage& storage,
                                      const DataEncryption* encryption = nullptr);

}  // namespace ringdisk::qcow2
