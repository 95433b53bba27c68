// SPDX-License-Identifier: Apache-2.0
// Reading into locked memory only: no stream of the library's, which would keep a copy.
#include "control/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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

// Fills `target` as far as there is something to read.
Result<size_t> read_some(int fd, MutableBytes target) {
  for (;;) {
    const ssize_t got = read(fd, target.data(), target.size());
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) return Error::from_errno(errno, "read secret");
  }
}

// False: it ends before.
Result<bool> skip(int fd, uint64_t bytes) {
  if (bytes == 0) return true;
  struct stat status {};
  const bool is_file = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  if (is_file && static_cast<uint64_t>(status.st_size) < bytes) return false;
  if (lseek(fd, static_cast<off_t>(bytes), SEEK_CUR) >= 0) return true;
  // Not to be sought in, so it is read; secret, too.
  ASSIGN_OR_RETURN(SecretBytes passed, SecretBytes::make(4096));
  while (bytes > 0) {
    const auto wanted = static_cast<size_t>(std::min<uint64_t>(bytes, passed.size()));
    ASSIGN_OR_RETURN(const size_t got, read_some(fd, passed.bytes().first(wanted)));
    if (got == 0) return false;
    bytes -= got;
  }
  return true;
}

// At most `most` bytes.
Result<SecretBytes> read_to_end(int fd, uint64_t most) {
  size_t length = 0;
  ASSIGN_OR_RETURN(SecretBytes secret, SecretBytes::make(4096));
  while (length < most) {
    const MutableBytes rest = secret.bytes().subspan(length);
    const auto wanted = static_cast<size_t>(std::min<uint64_t>(rest.size(), most - length));
    ASSIGN_OR_RETURN(const size_t got, read_some(fd, rest.first(wanted)));
    if (got == 0) break;
    length += got;
    if (length > kSecretFileBytesMax) return Error::of(ErrorKind::kLimit, "read secret");
    if (length < secret.size()) continue;
    ASSIGN_OR_RETURN(SecretBytes larger, SecretBytes::make(2 * length));
    copy_bytes(secret.bytes(), larger.bytes().first(length));
    secret = std::move(larger);
  }
  secret.shorten(length);
  return secret;
}

// What `part` says, or kCorrupt where the file ends before.
Result<SecretBytes> read_part(int fd, const KeyFilePart& part) {
  const Error too_short = Error::of(ErrorKind::kCorrupt, "read secret");
  ASSIGN_OR_RETURN(const bool is_there, skip(fd, part.offset));
  if (!is_there) return too_short;
  ASSIGN_OR_RETURN(SecretBytes secret, read_to_end(fd, part.size.value_or(~uint64_t{0})));
  if (part.size && secret.size() < *part.size) return too_short;
  return secret;
}

bool is_regular_file(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

Result<SecretBytes> read_secret_file(Blocking, const std::string& path, Diagnostics& diagnostics,
                                     KeyFilePart part) {
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
  Result<SecretBytes> secret = read_part(fd, part);
  // Whatever was to write into a pipe has failed: that is no passphrase of no letters.
  if (secret.ok() && secret.value().empty() && !is_regular_file(fd)) {
    return refuse(Error::of(ErrorKind::kInvalid, "read secret"), "nothing came");
  }
  if (secret.ok()) return secret;
  const Error& error = secret.error();
  if (error.kind == ErrorKind::kLimit) return refuse(error, "it has more than 8 MiB");
  if (error.kind == ErrorKind::kCorrupt) {
    return refuse(error, "it ends before the part that --keyfile-offset and --keyfile-size name");
  }
  return refuse(error, errno_text(error.errno_value));
}

}  // namespace ringdisk
