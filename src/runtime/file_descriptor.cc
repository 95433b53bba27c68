// SPDX-License-Identifier: Apache-2.0
// The one place where a descriptor is closed without asking how that went.
#include "runtime/file_descriptor.h"

#include <unistd.h>

namespace ringdisk {

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace ringdisk
