// SPDX-License-Identifier: Apache-2.0
// Locks on image files, on the same bytes as QEMU's, so that each program refuses to open for
// writing what the other has open, and both may read the same backing file. Open-file-description
// locks: they belong to the node's one descriptor, not to the process, and go away with it.
//
//   byte 100 + p: "I use permission p"                  p:  0 consistent read   1 write
//   byte 200 + p: "nobody else may use permission p"        2 write unchanged   3 resize
//
// All are shared (read) locks: any number may hold a byte. Whoever opens first takes its bytes,
// then looks whether anybody else holds a byte that contradicts: 200 + p for each p it uses, 100 +
// p for each p it forbids. Two that open at once may both see the other and both give up; never do
// both get in.
#pragma once

#include <cstdint>

#include "base/blocking.h"
#include "base/result.h"

namespace ringdisk {
class Diagnostics;
}

namespace ringdisk::file {

enum class LockUse : uint8_t {
  kRead,        // others may read, too
  kWrite,       // others may read if they bear with changes; none of those that we know does
  kReadShared,  // -U: read whatever others do
};

enum class Locking : uint8_t {
  kAuto,  // as far as the file system can
  kOn,    // fail where it cannot
  kOff,
};

// Locks the open file `fd`. kBusy, with the sentence that says what to do, when somebody else has
// contradicting ones. `offers_share`: the user could say -U.
Result<void> lock_file(Blocking token, int fd, LockUse use, Locking locking, uint32_t node,
                       Diagnostics& diagnostics, bool offers_share = true);

}  // namespace ringdisk::file
