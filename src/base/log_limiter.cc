// SPDX-License-Identifier: Apache-2.0
// Counting lines.
#include "base/log_limiter.h"

namespace ringdisk {

bool LogLimiter::write(LogLevel level, std::chrono::nanoseconds now, std::string_view line) {
  if (!log_.shows(level)) return false;
  if (written_ == 0 || now - began_ >= period_) {
    sum_up();
    began_ = now;
    written_ = 0;
  }
  if (written_ == lines_max_) return ++held_back_ == 1;
  ++written_;
  if (level == LogLevel::kWarning) {
    log_.warning(line);
  } else {
    log_.info(line);
  }
  return false;
}

void LogLimiter::sum_up() {
  if (held_back_ == 0) return;
  const std::string_view lines = held_back_ == 1 ? " more line about " : " more lines about ";
  const std::string_view were = held_back_ == 1 ? " was left out" : " were left out";
  log_.warning(std::to_string(held_back_).append(lines).append(subject_).append(were));
  held_back_ = 0;
}

}  // namespace ringdisk
