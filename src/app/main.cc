// SPDX-License-Identifier: Apache-2.0
// The process begins and ends here: words and environment in, exit status out.
#include <cstdlib>
#include <string_view>
#include <vector>

#include "app/program.h"

namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string_view> words(argv + std::min(argc, 1), argv + argc);
  ringdisk::Environment environment;
  environment.notify_socket = variable("NOTIFY_SOCKET");
  environment.allow_path = variable("RINGDISK_ALLOW_PATH");
  environment.loop = variable("RINGDISK_LOOP");
  return ringdisk::run_command_line(words, environment);
}
