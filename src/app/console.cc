// SPDX-License-Identifier: Apache-2.0
// The two standard streams.
#include "app/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace ringdisk {

void Console::write(std::string_view text) { fwrite(text.data(), 1, text.size(), stdout); }

void Console::remark(std::string_view text) {
  fwrite(text.data(), 1, text.size(), stderr);
  fflush(stderr);
}

Result<void> Console::flush() {
  errno = EIO;  // what a stream that failed earlier no longer says
  if (fflush(stdout) != 0 || ferror(stdout)) {
    return Error::from_errno(errno, "write to standard output");
  }
  return {};
}

bool Console::is_terminal() const { return isatty(STDOUT_FILENO) == 1; }

bool Console::is_remark_terminal() const { return isatty(STDERR_FILENO) == 1; }

uint32_t Console::columns() const {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace ringdisk
