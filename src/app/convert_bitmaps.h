// SPDX-License-Identifier: Apache-2.0
// convert --bitmaps: the persistent bitmaps of the source go with its content, as they are: name,
// granularity, whether they record changes, and what they have recorded.
#pragma once

#include <vector>

#include "app/convert_request.h"
#include "app/images.h"

namespace ringdisk {

// What is to be done to the target so that it has the source's bitmaps; nothing where that was not
// asked for. Errors: there are several sources, or a format without bitmaps; one of the bitmaps
// cannot be copied and may not be skipped.
Task<std::vector<BitmapEdit>> read_source_bitmaps(Program& program, const ConvertRequest& request,
                                                  const Devices& sources);

// Refuses a target that cannot take them, before anything is copied to it.
Task<void> check_target_bitmaps(Program& program, const std::vector<BitmapEdit>& edits,
                                DeviceNode& target);

// The target has been closed.
Task<void> write_target_bitmaps(Program& program, const ConvertRequest& request,
                                std::vector<BitmapEdit> edits);

}  // namespace ringdisk
