// SPDX-License-Identifier: Apache-2.0
// Writing a header anew as a whole, where more than fields of one sector change: another backing
// file, another version, extensions. At any moment the disk holds the old header or the new one,
// because what counts is always switched by one write of the first sector, which is torn nowhere.
//
// Where the new extensions lie on the old ones, and neither fits the first sector, they go the long
// way round, through the free rest of the header's cluster, over which a filler extension leads:
//
//   | fields | old extensions, old name |                                            |  as it is
//   | fields | filler ................................ | new extensions, new name |     |  switched
//   | fields | new extensions, new name |                                            |  switched
//
// Only the plan is made here as a value; every step is durable before the next one begins.
#pragma once

#include <functional>

#include "async/task.h"
#include "qcow2/layout/header.h"

namespace ringdisk {
class StorageAccess;
}

namespace ringdisk::qcow2 {

struct HeaderWrite {
  uint64_t at = 0;  // multiple of 512
  std::vector<std::byte> bytes;
};

// The steps from `old_bytes`, the front of the image as parse_header was given it, to `wanted`.
// `old_end` is Header::end of what was parsed. Feature names give way where there is no room for
// them. kLimit: the header's cluster is too small.
Result<std::vector<HeaderWrite>> plan_header_rewrite(Bytes old_bytes, uint64_t old_end,
                                                     const Header& wanted);

// Changes what it is given, which is what the disk says at this moment.
using HeaderChange = std::function<Result<void>(Header&)>;

// Reads the header, has it changed, writes it durably; nothing where nothing has changed. Unknown
// fields and extensions, and bits nobody here knows, stay what they are. What an open image keeps
// of its header in memory is the caller's affair.
Task<void> rewrite_header(StorageAccess& storage, Diagnostics& diagnostics,
                          const HeaderChange& change);

}  // namespace ringdisk::qcow2
