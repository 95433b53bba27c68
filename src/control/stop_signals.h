// SPDX-License-Identifier: Apache-2.0
// StopSignals: SIGINT, SIGTERM and SIGHUP as a cancellation on shard 0. The signals are blocked for
// the whole process before any thread starts and read from a signalfd through the shard's loop, so
// no code of ours runs in a signal handler. The first one asks for a clean stop; from then on they
// have their usual effect again, so that a second one ends a process that hangs.
//
//   StopSignals signals;                       // in main(), before the threads
//   RETURN_IF_ERROR(signals.start());
//   ... on shard 0:  scope.spawn(signals.watch(shard, source, scope.token()));
#pragma once

#include "async/cancel.h"
#include "async/task.h"
#include "runtime/socket_stream.h"

namespace ringdisk {

class Shard;

// Made in main(), used on shard 0.
class StopSignals {
 public:
  StopSignals() = default;
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Blocks the signals and SIGPIPE in the calling thread and all that it starts later.
  Result<void> start();

  bool is_started() const { return signals_.get() >= 0; }

  // Cancels `source` when a signal comes. Ends then, at once if not started, or without an error
  // when `token` is cancelled.
  Task<void> watch(Shard& shard, CancelSource& source, CancelToken token);

  // The signal that came, or 0.
  int received() const { return received_; }

 private:
  void take_signal(CancelSource& source);

  FileDescriptor signals_;
  int received_ = 0;
};

}  // namespace ringdisk
