// SPDX-License-Identifier: Apache-2.0
// StopSignals: SIGINT, SIGTERM and SIGHUP as cancellations on shard 0. The signals are blocked for
// the whole process before any thread starts and read from a signalfd through the shard's loop, so
// no code of ours runs in a signal handler. The first one asks for a clean stop, the second one, of
// a command that knows the difference, for a stop at once; from then on they have their usual
// effect again, so that one more ends a process that hangs.
//
//   StopSignals signals;                       // in main(), before the threads
//   RETURN_IF_ERROR(signals.start());
//   ... on shard 0:  scope.spawn(signals.watch(shard, sources, scope.token()));
#pragma once

#include <span>

#include "async/cancel.h"
#include "async/task.h"
#include "runtime/file_descriptor.h"

namespace ringdisk {

class Shard;

// Made in main(), used on shard 0.
class StopSignals {
 public:
  StopSignals() = default;
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Blocks the signals in the calling thread and all that it starts later.
  Result<void> start();

  // The first signal cancels the first of `sources`, which outlive the task, the second one the
  // second. Ends when there is none left, or without an error when `token` is cancelled. Once.
  Task<void> watch(Shard& shard, std::span<CancelSource* const> sources, CancelToken token);

  // The newest signal that came, or 0.
  int received() const { return received_; }

 private:
  bool take_signal();

  FileDescriptor signals_;
  int received_ = 0;
};

// A peer or a reader that went away is an errno, not the end (SIGPIPE). In main(), as start().
Result<void> ignore_broken_pipes();

// A write beyond the limit on file sizes (ulimit -f) is an errno, not the end (SIGXFSZ). In main().
Result<void> ignore_file_size_limit();

}  // namespace ringdisk
