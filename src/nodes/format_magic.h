// SPDX-License-Identifier: Apache-2.0
// What the first bytes of a disk would make other programs (and ringdisk) take it for. Used to keep
// a disk that was taken as raw without being told so from becoming something else by what its guest
// writes: a guest that could write a qcow2 header with a backing file of its choice would read any
// file of the host at the next opening.
//
// The list is longer than what ringdisk can open, since the next program to probe the file need not
// be ringdisk.
#pragma once

#include <string_view>

#include "base/bytes.h"

namespace ringdisk {

// All that is looked at: the first sector.
inline constexpr size_t kFormatMagicBytes = 512;

// The name of the format that `first` (the beginning of the disk, at most kFormatMagicBytes are
// looked at) announces; empty for none. Pure.
std::string_view announced_format(Bytes first);

}  // namespace ringdisk
