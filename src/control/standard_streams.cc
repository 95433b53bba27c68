// SPDX-License-Identifier: Apache-2.0
// /dev/null, opened the wrong way round.
#include "control/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace ringdisk {

Result<void> occupy_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) >= 0) continue;
    // The lowest number that is free is this one.
    const int wrong_way = stream == STDIN_FILENO ? O_WRONLY : O_RDONLY;
    if (open("/dev/null", wrong_way) < 0) return Error::from_errno(errno, "open /dev/null");
  }
  return {};
}

}  // namespace ringdisk
