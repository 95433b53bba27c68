// SPDX-License-Identifier: Apache-2.0
// Progress of a long job, told to people or to programs, in one of three forms:
//
//   kBar      on a terminal: "convert  [=======     ]  45.2%  1.1 GiB/s  0:03 left", redrawn
//   kPercent  into a pipe: "    (45.20/100%)\r", as qemu-img -p does; a line feed at the end
//   kJson     for programs, one object a line: {"event": "progress", "job": "convert", "done": 1,
//             "total": 2, "unit": "bytes", "seconds": 0.250}
//
// A reporter asks the job at even intervals; the job itself only keeps a number. One shard only.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "async/cancel.h"
#include "async/task.h"
#include "runtime/clock.h"

namespace ringdisk {

class Shard;

enum class ProgressForm : uint8_t { kNone, kBar, kPercent, kJson };

struct ProgressOptions {
  ProgressForm form = ProgressForm::kNone;
  std::string job;                 // "convert"
  bool counts_bytes = true;        // else clusters
  uint32_t terminal_columns = 80;  // kBar
  Duration interval = std::chrono::milliseconds(200);
  Duration silent_for = Duration(0);  // nothing is shown of what ends sooner
  // Where text goes, whole lines or redrawn ones; called on the shard of watch().
  std::function<void(std::string_view)> write;
};

class ProgressReporter {
 public:
  // `done` and `total` are asked again and again; total may be 0 as long as it is not known.
  ProgressReporter(ProgressOptions options, std::function<uint64_t()> done,
                   std::function<uint64_t()> total);

  // Reports until `token` is cancelled.
  Task<void> watch(Shard& shard, CancelToken token);
  // The last report, with the line ended: the job has succeeded (everything is done) or not.
  void finish(bool succeeded);

 private:
  void report();
  std::string bar_line(uint64_t done, uint64_t total) const;
  std::string json_line(uint64_t done, uint64_t total) const;
  Duration elapsed() const;

  const ProgressOptions options_;
  const std::function<uint64_t()> done_;
  const std::function<uint64_t()> total_;
  const Clock* clock_ = nullptr;  // set by watch()
  Instant began_;
  bool has_shown_ = false;
};

}  // namespace ringdisk
