// SPDX-License-Identifier: Apache-2.0
// LogLimiter: lines that somebody outside can cause as often as he likes, such as those about
// clients that break the protocol, so that a log keeps its size and its readers. In each period the
// first few lines are written, the others are counted and told of in one line:
//
//   dropped … | dropped … | (8 more) | 4711 more lines about clients were left out | dropped …
//   `--------------- one period ---------------´
//
// One shard only. Time comes from its user, as what has passed since some start.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"

namespace ringdisk {

class LogLimiter {
 public:
  // At most `lines_max` lines a `period`, and one that counts the rest, which are "about
  // `subject`". `log` outlives it.
  LogLimiter(Log& log, std::string subject, uint32_t lines_max, std::chrono::nanoseconds period)
      : log_(log), subject_(std::move(subject)), lines_max_(lines_max), period_(period) {}
  LogLimiter(const LogLimiter&) = delete;
  LogLimiter& operator=(const LogLimiter&) = delete;

  // Writes `line`, or holds it back. True: it is the first one held back since the last sum, so
  // that the caller sees to it that sum_up() is called when a period is over.
  [[nodiscard]] bool write(LogLevel level, std::chrono::nanoseconds now, std::string_view line);
  // Says how many lines were held back, if any were.
  void sum_up();

 private:
  // constant after construction
  Log& log_;
  const std::string subject_;
  const uint32_t lines_max_;
  const std::chrono::nanoseconds period_;

  std::chrono::nanoseconds began_{0};  // the period that the newest line fell into
  uint32_t written_ = 0;               // in it
  uint64_t held_back_ = 0;             // since the last sum
};

}  // namespace ringdisk
