// SPDX-License-Identifier: Apache-2.0
// One write(2) a line: the kernel keeps lines of several threads apart.
#include "base/log.h"

#include <unistd.h>

namespace ringdisk {

void Log::write_line(LogLevel level, std::string_view line) {
  if (!shows(level)) return;
  std::string whole = prefix_;
  whole += line;
  whole += '\n';
  // A log that cannot be written has nowhere to say so.
  if (write(fd_, whole.data(), whole.size()) < 0) return;
}

}  // namespace ringdisk
