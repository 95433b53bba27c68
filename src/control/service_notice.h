// SPDX-License-Identifier: Apache-2.0
// What a service says to those who started it: sd_notify's datagram to the service manager, and a
// file with the process id. Both are asked for from outside and fail softly or hard as written.
#pragma once

#include <string>
#include <string_view>

#include "base/blocking.h"
#include "base/result.h"

namespace ringdisk {

class Diagnostics;

// Sends `state`, such as "READY=1" or "STOPPING=1", to the datagram socket that the service manager
// names in NOTIFY_SOCKET: a path, or '@' and an abstract name (systemd's sd_notify(3)). An empty
// `socket_name` is nobody to tell, and no error.
Result<void> notify_service(Blocking token, std::string_view socket_name, std::string_view state);

// A file that holds this process's id and a line feed, removed when the object goes.
class PidFile {
 public:
  PidFile() = default;
  PidFile(const PidFile&) = delete;
  PidFile& operator=(const PidFile&) = delete;
  ~PidFile();

  // Writes `path` anew, whole or not at all (a new file takes the place of the old one).
  Result<void> write(Blocking token, const std::string& path, Diagnostics& diagnostics);

 private:
  std::string path_;  // empty: nothing to remove
};

}  // namespace ringdisk
