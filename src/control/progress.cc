// SPDX-License-Identifier: Apache-2.0
// Wording and drawing of progress.
#include "control/progress.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "block/options.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

double percent_of(uint64_t done, uint64_t total) {
  if (total == 0) return 0;
  return 100.0 * static_cast<double>(std::min(done, total)) / static_cast<double>(total);
}

double seconds_of(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// "0:03", "1:02:45".
std::string clock_text(double seconds) {
  const auto whole = static_cast<uint64_t>(std::clamp(seconds, 0.0, 359999.0) + 0.5);
  char text[32];
  if (whole >= 3600) {
    snprintf(text, sizeof text, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, whole / 3600,
             whole / 60 % 60, whole % 60);
  } else {
    snprintf(text, sizeof text, "%" PRIu64 ":%02" PRIu64, whole / 60, whole % 60);
  }
  return text;
}

constexpr std::string_view kEraseLine = "\r\x1b[K";

}  // namespace

ProgressReporter::ProgressReporter(ProgressOptions options, std::function<uint64_t()> done,
                                   std::function<uint64_t()> total)
    : options_(std::move(options)), done_(std::move(done)), total_(std::move(total)) {}

Duration ProgressReporter::elapsed() const { return clock_ ? clock_->now() - began_ : Duration(0); }

Task<void> ProgressReporter::watch(Shard& shard, CancelToken token) {
  clock_ = &shard.clock();
  began_ = clock_->now();
  if (options_.form == ProgressForm::kNone) co_return;
  if (options_.silent_for == Duration(0)) report();
  while (!token.is_cancelled()) {
    Result<void> slept = co_await shard.sleep(options_.interval, token);
    if (!slept.ok()) co_return;
    if (elapsed() >= options_.silent_for) report();
  }
}

void ProgressReporter::report() {
  const uint64_t total = total_();
  const uint64_t done = std::min(done_(), total);
  has_shown_ = true;
  switch (options_.form) {
    case ProgressForm::kNone:
      return;
    case ProgressForm::kBar:
      options_.write(std::string(kEraseLine) + bar_line(done, total));
      return;
    case ProgressForm::kPercent: {
      char text[32];
      snprintf(text, sizeof text, "    (%.2f/100%%)\r", percent_of(done, total));
      options_.write(text);
      return;
    }
    case ProgressForm::kJson:
      options_.write(json_line(done, total));
      return;
  }
}

void ProgressReporter::finish(bool succeeded) {
  if (options_.form == ProgressForm::kNone) return;
  if (!has_shown_ && options_.silent_for != Duration(0)) return;
  if (succeeded || options_.form == ProgressForm::kJson) report();
  if (options_.form != ProgressForm::kJson) options_.write("\n");
}

std::string ProgressReporter::bar_line(uint64_t done, uint64_t total) const {
  const double seconds = seconds_of(elapsed());
  const double percent = percent_of(done, total);
  char figures[96];
  int length = snprintf(figures, sizeof figures, " %5.1f%%", percent);
  if (seconds > 0 && done > 0 && options_.counts_bytes) {
    const double speed = static_cast<double>(done) / seconds;
    length += snprintf(figures + length, sizeof figures - static_cast<size_t>(length), "  %s/s",
                       human_size(static_cast<uint64_t>(speed)).c_str());
  }
  if (seconds > 1 && done > 0 && done < total) {
    const double left = seconds * static_cast<double>(total - done) / static_cast<double>(done);
    snprintf(figures + length, sizeof figures - static_cast<size_t>(length), "  %s left",
             clock_text(left).c_str());
  }
  const std::string text(figures);
  const size_t taken = options_.job.size() + text.size() + 5;
  const size_t width = options_.terminal_columns > taken + 10
                           ? std::min<size_t>(options_.terminal_columns - taken, 40)
                           : 0;
  if (width == 0) return options_.job + text;
  const auto filled = static_cast<size_t>(percent / 100 * static_cast<double>(width));
  return options_.job + "  [" + std::string(filled, '=') + std::string(width - filled, ' ') + "]" +
         text;
}

std::string ProgressReporter::json_line(uint64_t done, uint64_t total) const {
  char text[192];
  snprintf(text, sizeof text,
           "{\"event\": \"progress\", \"job\": \"%s\", \"done\": %" PRIu64 ", \"total\": %" PRIu64
           ", \"unit\": \"%s\", \"seconds\": %.3f}\n",
           options_.job.c_str(), done, total, options_.counts_bytes ? "bytes" : "clusters",
           seconds_of(elapsed()));
  return text;
}

}  // namespace ringdisk
