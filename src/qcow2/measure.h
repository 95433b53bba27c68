// SPDX-License-Identifier: Apache-2.0
// How large an image would become: FormatAdmin::measure. The plan that create.h makes of an image
// with all of its clusters, less the clusters that nobody writes; tables are counted as if they
// were needed from end to end, as `qemu-img measure` counts them.
//
//   fully allocated   | header | refcounts | L1 | encryption | L2 tables | all guest clusters |
//   required          | header | refcounts | L1 | encryption | L2 tables | those with content  |
//   bitmaps           | directory | tables | the bits of each, from end to end |
#pragma once

#include "block/data_encryption.h"
#include "block/format_admin.h"

namespace ringdisk::qcow2 {

// `encryption` may be null: then encrypted images are refused.
Task<MeasureReport> measure_image(const World& world, MeasureRequest request,
                                  const DataEncryption* encryption);

}  // namespace ringdisk::qcow2
