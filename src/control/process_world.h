// SPDX-License-Identifier: Apache-2.0
// ProcessWorld: the World of a real process: shards on threads, the system's clock, sockets, a pool
// for blocking calls. main() makes one, runs its root task on it and lets it go. Its simulated
// sister is sim/sim_world.h.
//
//   ProcessWorld process(options);
//   RETURN_IF_ERROR(process.start());
//   Result<int> exit_status = process.run(root);          // root: Shard& -> Task<int>
#pragma once

#include <memory>
#include <optional>

#include "base/diagnostics.h"
#include "base/log.h"
#include "runtime/runtime.h"
#include "runtime/socket_network.h"
#include "runtime/thread_blocking_pool.h"
#include "runtime/world.h"

namespace ringdisk {

struct ProcessWorldOptions {
  RuntimeOptions runtime;
  LogLevel log_level = LogLevel::kWarning;
};

// The thread that makes it also starts, runs and destroys it. After start() world() is for any
// thread.
class ProcessWorld {
 public:
  // `diagnostics` outlives it.
  ProcessWorld(ProcessWorldOptions options, Diagnostics& diagnostics);
  ProcessWorld(const ProcessWorld&) = delete;
  ProcessWorld& operator=(const ProcessWorld&) = delete;

  Result<void> start();
  const World& world() const { return *world_; }

  template <class F>
  auto run(F root) {
    return runtime_.run(std::move(root));
  }

 private:
  Diagnostics& diagnostics_;
  SystemClock clock_;
  Log log_;
  Runtime runtime_;
  ThreadBlockingPool blocking_;
  SocketNetwork network_;
  std::optional<World> world_;  // set by start()
};

}  // namespace ringdisk
