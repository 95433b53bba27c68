// SPDX-License-Identifier: Apache-2.0
// The size of a disk that the user has named, and another one for it (jobs/resize.h).
#pragma once

#include "app/program.h"
#include "jobs/preallocate.h"

namespace ringdisk {

// Of a disk as it is; opened and closed in between.
Task<ByteCount> size_of_disk(Program& program, ImageName name, OpenMode mode);
// `mode` is for writing. Nothing else may have the image open.
Task<void> change_disk_size(Program& program, ImageName name, OpenMode mode, ByteCount old_size,
                            ByteCount size, Preallocation how = Preallocation::kOff);

}  // namespace ringdisk
