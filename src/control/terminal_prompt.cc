// SPDX-License-Identifier: Apache-2.0
// termios around one read.
#include "control/terminal_prompt.h"

#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>

#include "runtime/file_descriptor.h"

namespace ringdisk {
namespace {

constexpr int kLookMs = 50;          // between two looks at `stopped`
constexpr size_t kLineBytes = 4096;  // the kernel's longest line, line feed included

// Ends with the terminal as it was found.
class HiddenEcho {
 public:
  explicit HiddenEcho(int fd) : fd_(fd) {}
  ~HiddenEcho() {
    if (is_set_) tcsetattr(fd_, TCSAFLUSH, &before_);
  }
  HiddenEcho(const HiddenEcho&) = delete;
  HiddenEcho& operator=(const HiddenEcho&) = delete;

  Result<void> start() {
    if (tcgetattr(fd_, &before_) != 0) return Error::from_errno(errno, "ask at the terminal");
    termios hidden = before_;
    hidden.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    hidden.c_lflag |= ICANON | ISIG | ECHONL;
    // Stopped by Ctrl-Z or killed by Ctrl-\ the process would leave the terminal without echo.
    hidden.c_cc[VSUSP] = _POSIX_VDISABLE;
    hidden.c_cc[VQUIT] = _POSIX_VDISABLE;
    if (tcsetattr(fd_, TCSAFLUSH, &hidden) != 0) {
      return Error::from_errno(errno, "ask at the terminal");
    }
    is_set_ = true;
    return {};
  }

 private:
  const int fd_;
  bool is_set_ = false;
  termios before_{};
};

void say(int fd, const std::string& text) {
  // That it cannot be shown shows itself in the read.
  const ssize_t written = write(fd, text.data(), text.size());
  static_cast<void>(written);
}

Result<size_t> read_line(int fd, MutableBytes target, const std::atomic<bool>& stopped) {
  for (;;) {
    pollfd waiting{fd, POLLIN, 0};
    const int ready = poll(&waiting, 1, kLookMs);
    if (stopped.load(std::memory_order_relaxed)) {
      say(fd, "\n");
      return Error::of(ErrorKind::kCancelled, "ask at the terminal");
    }
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    if (ready < 0) return Error::from_errno(errno, "ask at the terminal");
    const ssize_t got = read(fd, target.data(), target.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Error::from_errno(errno, "ask at the terminal");
    return static_cast<size_t>(got);
  }
}

}  // namespace

Result<SecretBytes> ask_at_terminal(Blocking, const std::string& terminal,
                                    const std::string& question, const std::atomic<bool>& stopped) {
  FileDescriptor tty(open(terminal.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (!tty.is_open()) return Error::of(ErrorKind::kNotFound, "ask at the terminal");
  ASSIGN_OR_RETURN(SecretBytes line, SecretBytes::make(kLineBytes));
  HiddenEcho echo(tty.get());
  RETURN_IF_ERROR(echo.start());
  say(tty.get(), question);
  ASSIGN_OR_RETURN(size_t length, read_line(tty.get(), line.bytes(), stopped));
  if (length > 0 && line.bytes()[length - 1] == std::byte{'\n'}) --length;
  if (length == 0) return Error::of(ErrorKind::kInvalid, "ask at the terminal");
  line.shorten(length);
  return line;
}

}  // namespace ringdisk
