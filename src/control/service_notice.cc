// SPDX-License-Identifier: Apache-2.0
// One datagram and one small file.
#include "control/service_notice.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>

#include "base/bytes.h"
#include "base/diagnostics.h"
#include "runtime/socket_stream.h"

namespace ringdisk {

Result<void> notify_service(Blocking, std::string_view socket_name, std::string_view state) {
  if (socket_name.empty()) return {};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_name.size() >= sizeof address.sun_path) {
    return Error::from_errno(ENAMETOOLONG, "notify the service manager");
  }
  socket_name.copy(address.sun_path, socket_name.size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  FileDescriptor socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return Error::from_errno(errno, "notify the service manager");
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_name.size());
  // why: the socket interface takes every kind of address as a sockaddr
  const auto* to = reinterpret_cast<const sockaddr*>(&address);
  if (sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL, to, length) < 0) {
    return Error::from_errno(errno, "notify the service manager");
  }
  return {};
}

PidFile::~PidFile() {
  if (!path_.empty()) unlink(path_.c_str());
}

Result<void> PidFile::write(Blocking, const std::string& path, Diagnostics& diagnostics) {
  const std::string fresh = path + ".new";
  auto refuse = [&](int errno_value) {
    return diagnostics.explain(Error::from_errno(errno_value, "write pid file"),
                               "cannot write pid file '" + path + "': " + errno_text(errno_value));
  };
  const std::string text = std::to_string(getpid()) + "\n";
  {
    FileDescriptor file(open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (file.get() < 0) return refuse(errno);
    if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
      const int failed = errno;
      unlink(fresh.c_str());
      return refuse(failed);
    }
  }
  if (rename(fresh.c_str(), path.c_str()) != 0) {
    const int failed = errno;
    unlink(fresh.c_str());
    return refuse(failed);
  }
  path_ = path;
  return {};
}

}  // namespace ringdisk
