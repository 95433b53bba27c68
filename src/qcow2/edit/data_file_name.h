// SPDX-License-Identifier: Apache-2.0
// Another recorded name for an image's data file. The data file itself is not opened: the old one
// may be gone, which is why one asks. One rewrite of the header.
#pragma once

#include "block/graph.h"
#include "qcow2/edit/amend.h"

namespace ringdisk::qcow2 {

// Judges the whole amendment by the header, then records its data_file, and its data_file_raw=off.
// kInvalid, besides what judge_amendment refuses: the new data file is the image itself, or an
// image whose data file this one is: guest data would be written over tables. kCorrupt: the image
// is marked as corrupt.
Task<void> change_data_file_name(Graph& graph, SharedStorage& storage, const Amendment& amendment);

}  // namespace ringdisk::qcow2
