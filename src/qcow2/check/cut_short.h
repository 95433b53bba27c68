// SPDX-License-Identifier: Apache-2.0
// Whether guest data of an encrypted image lies where its file does not reach any more. It reads as
// an error as long as that is so; once the file has grown over the place, as noise. So such an
// image is not opened for writing.
#pragma once

#include "block/storage_access.h"
#include "qcow2/layout/header.h"
#include "runtime/world.h"

namespace ringdisk::qcow2 {

// Of the image whose `header` has been read through `access`. Costs a look at the last refcount
// block or two; a check of the whole image only where clusters beyond the end are counted, which a
// crash may leave, too (they are leaks then).
Task<bool> is_cut_short(const World& world, SharedStorage& storage, StorageAccess& access,
                        const Header& header);

}  // namespace ringdisk::qcow2
