// SPDX-License-Identifier: Apache-2.0
// Reading into locked memory only: no stream of the library's, which would keep a copy.
#include "control/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <optional>
#include <string_view>

#include "base/diagnostics.h"
#include "runtime/file_descriptor.h"

namespace ringdisk {
namespace {

// N of "fd:N" and "/dev/fd/N"; "-" is standard input.
std::optional<int> inherited_descriptor(std::string_view path) {
  if (path == "-") return STDIN_FILENO;
  for (std::string_view prefix : {"fd:", "/dev/fd/"}) {
    if (!path.starts_with(prefix)) continue;
    const std::string_view digits = path.substr(prefix.size());
    int number = -1;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    const bool is_number = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
    if (is_number && number >= 0) return number;
  }
  return std::nullopt;
}

Result<SecretBytes> read_to_end(int fd) {
  size_t length = 0;
  ASSIGN_OR_RETURN(SecretBytes secret, SecretBytes::make(4096));
  for (;;) {
    const MutableBytes rest = secret.bytes().subspan(length);
    const ssize_t got = read(fd, rest.data(), rest.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Error::from_errno(errno, "read secret");
    if (got == 0) break;
    length += static_cast<size_t>(got);
    if (length > kSecretFileBytesMax) return Error::of(ErrorKind::kLimit, "read secret");
    if (length < secret.size()) continue;
    ASSIGN_OR_RETURN(SecretBytes larger, SecretBytes::make(2 * length));
    copy_bytes(secret.bytes(), larger.bytes().first(length));
    secret = std::move(larger);
  }
  secret.shorten(length);
  return secret;
}

bool is_regular_file(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

Result<SecretBytes> read_secret_file(Blocking, const std::string& path, Diagnostics& diagnostics) {
  auto refuse = [&](const Error& error, const std::string& why) {
    return diagnostics.explain(error, "cannot read the secret in '" + path + "': " + why);
  };
  FileDescriptor opened;
  int fd = inherited_descriptor(path).value_or(-1);
  if (fd < 0) {
    opened = FileDescriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    fd = opened.get();
    if (fd < 0) return refuse(Error::from_errno(errno, "read secret"), errno_text(errno));
  }
  Result<SecretBytes> secret = read_to_end(fd);
  // Whatever was to write into a pipe has failed: that is no passphrase of no letters.
  if (secret.ok() && secret.value().empty() && !is_regular_file(fd)) {
    return refuse(Error::of(ErrorKind::kInvalid, "read secret"), "nothing came");
  }
  if (secret.ok()) return secret;
  const bool is_too_long = secret.error().kind == ErrorKind::kLimit;
  return refuse(secret.error(),
                is_too_long ? "it has more than 8 MiB" : errno_text(secret.error().errno_value));
}

}  // namespace ringdisk
