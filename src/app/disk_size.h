// SPDX-License-Identifier: Apache-2.0
// Giving a disk another size, for the commands that do. What lies beyond a smaller end is given up
// first, by the same requests a guest would discard it with; what a larger disk gains is made to
// read as zeros, also where a backing image or the old last cluster would show through. Where that
// fails the disk gets its old size back.
#pragma once

#include "app/program.h"

namespace ringdisk {

// Of a disk as it is; opened and closed in between.
Task<ByteCount> size_of_disk(Program& program, ImageName name, OpenMode mode);
// `mode` is for writing. Nothing else may have the image open.
Task<void> change_disk_size(Program& program, ImageName name, OpenMode mode, ByteCount old_size,
                            ByteCount size);

}  // namespace ringdisk
