// SPDX-License-Identifier: Apache-2.0
// Making a new image: header, refcounts and tables laid one behind the other from the start of the
// storage, in the order of the picture, everything known before the first byte is written. Nothing
// is left to chance of what the storage held before.
//
//   | header | refcount table | refcount blocks | L1 table | encryption header |
//   | L2 tables | data clusters |                              (these: preallocated images)
//
// A data file is made with its image, as long as the disk; data clusters are then there.
#pragma once

#include <optional>

#include "async/task.h"
#include "block/data_encryption.h"
#include "block/format_admin.h"
#include "block/preallocation.h"
#include "qcow2/layout/header.h"

namespace ringdisk::qcow2 {

struct CreateSettings {
  Header header;  // size, geometry, features, backing name; places are filled by plan_layout
  Preallocation preallocation = Preallocation::kOff;
  std::optional<Options> encryption;  // encrypt.*, without that prefix
  ByteCount encryption_bytes;         // of its header, once known
};

// Where everything of a new image lies, in clusters. Pure.
struct Layout {
  uint64_t refcount_table, refcount_table_clusters;
  uint64_t refcount_blocks, refcount_block_clusters;
  uint64_t l1_table, l1_clusters, l1_entries;
  uint64_t encryption, encryption_clusters;
  uint64_t l2_tables, l2_clusters;
  uint64_t data, data_clusters;
  uint64_t total;
};

// What the -o options and the backing image ask for. kInvalid or kUnsupported, with a note, for
// what is not right.
Result<CreateSettings> parse_create_options(CreateRequest& request, Diagnostics& diagnostics);
// Every image has one, larger than limits allow perhaps. The refcount table has room, within its
// limit, for all clusters that the image may come to have.
Layout lay_out(const CreateSettings& settings);
// kLimit where an image of this size needs larger tables than limits allow at its cluster size.
Result<Layout> plan_layout(const CreateSettings& settings, Diagnostics& diagnostics);

// FormatAdmin::create. `encryption` may be null: then encrypted images are refused.
Task<void> create_image(Graph& graph, CreateRequest request,
                        const DataEncryption* encryption = nullptr);

}  // namespace ringdisk::qcow2
