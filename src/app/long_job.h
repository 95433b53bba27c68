// SPDX-License-Identifier: Apache-2.0
// Running what takes long: beside it a reporter of its progress, which ends with it.
//
//   auto body = [&](CancelToken token) { return job.run(token); };
//   co_await run_long_job(program, reporter, body);
#pragma once

#include "app/program.h"
#include "async/scope.h"
#include "control/progress.h"
#include "runtime/shard.h"

namespace ringdisk {

// What -p, -q and --progress=FORM ask for. Without any of them a bar appears on a terminal once the
// job has taken a second.
Result<ProgressOptions> progress_options(Program& program, const Arguments& arguments,
                                         std::string_view job);

// -r: how many bytes a second a job may copy; 0 without it, for as many as it can.
Result<uint64_t> rate_argument(const Arguments& arguments, Diagnostics& diagnostics);

namespace long_job_internal {
template <class F>
Task<void> run_beside_reporter(Scope& scope, Program& program, ProgressReporter& reporter,
                               F& body) {
  scope.spawn(reporter.watch(Shard::current(), scope.token()));
  Result<void> done = co_await body(program.stop.token()).result();
  scope.cancel();
  reporter.finish(done.ok());
  co_await std::move(done);
}
}  // namespace long_job_internal

// Runs `body(token)`, which gives a Task<void>; the token is that of Program::stop. On shard 0.
template <class F>
Task<void> run_long_job(Program& program, ProgressReporter& reporter, F body) {
  auto beside = [&](Scope& scope) {
    return long_job_internal::run_beside_reporter(scope, program, reporter, body);
  };
  co_await with_scope(beside);
}

}  // namespace ringdisk
