// SPDX-License-Identifier: Apache-2.0
// Log: where lines for the operator go. main() makes one and hands it down; any thread may write. A
// line is whole or absent, never mixed with another. `info` lines appear with -v, `debug` lines
// with -vv, `warning` always.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ringdisk {

enum class LogLevel : uint8_t { kWarning, kInfo, kDebug };

class Log {
 public:
  // Lines go to file descriptor `fd`, each after `prefix`. -1: nowhere.
  Log(int fd, LogLevel level, std::string prefix)
      : fd_(fd), level_(level), prefix_(std::move(prefix)) {}

  bool shows(LogLevel level) const { return fd_ >= 0 && level <= level_; }
  void warning(std::string_view line) { write_line(LogLevel::kWarning, line); }
  void info(std::string_view line) { write_line(LogLevel::kInfo, line); }
  void debug(std::string_view line) { write_line(LogLevel::kDebug, line); }

 private:
  void write_line(LogLevel level, std::string_view line);

  // constant after construction
  int fd_;
  LogLevel level_;
  std::string prefix_;
};

}  // namespace ringdisk
