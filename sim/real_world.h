// SPDX-License-Identifier: Apache-2.0
// RealWorld: the real runtime for tests that need the machine's files and sockets: threads, a clock
// that runs, io_uring or epoll. The same face as SimWorld's, as far as there can be one.
//
//   RealWorld world(LoopKind::kEpoll, 2);
//   Result<int> got = world.run(&read_header);      // Task<int> read_header(Shard&), on shard 0
//   Result<void> all = world.run_on_all(&hammer);   // Task<void> hammer(Shard&), on every shard
#pragma once

#include <gtest/gtest.h>

#include "async/scope.h"
#include "base/diagnostics.h"
#include "base/log.h"
#include "runtime/runtime.h"
#include "runtime/socket_network.h"
#include "runtime/thread_blocking_pool.h"
#include "runtime/world.h"

namespace ringdisk::sim {

class RealWorld {
 public:
  explicit RealWorld(LoopKind loop = LoopKind::kBest, uint32_t shard_count = 1)
      : runtime_(options_of(loop, shard_count), clock_, log_),
        started_(runtime_.start()),
        blocking_(runtime_.worker_threads()),
        network_(blocking_, diagnostics_),
        world_{clock_, log_, diagnostics_, blocking_, network_, runtime_.shards()} {}

  // Whether there is such a loop on this machine. Nothing else may be called where not.
  bool is_started() const { return started_.ok(); }
  const World& world() const { return world_; }
  Diagnostics& diagnostics() { return diagnostics_; }

  template <class F>
  auto run(F make) {
    return runtime_.run(std::move(make));
  }
  // The first error is the result.
  template <class F>
  Result<void> run_on_all(F make) {
    auto all = [this, &make](Shard&) { return call_all(make); };
    return runtime_.run(all);
  }

 private:
  static RuntimeOptions options_of(LoopKind loop, uint32_t shard_count) {
    RuntimeOptions options;
    options.loop = loop;
    options.shards = shard_count;
    return options;
  }
  template <class F>
  static Task<void> call_there(Shard& there, F& make) {
    auto body = [&there, &make] { return make(there); };
    co_await there.call(body);
  }
  template <class F>
  Task<void> call_all(F& make) {
    auto one = [this, &make](size_t index) { return call_there(*world_.shards[index], make); };
    co_await when_all(world_.shards.size(), one);
  }

  SystemClock clock_;
  Log log_{-1, LogLevel::kWarning, ""};
  Diagnostics diagnostics_;
  Runtime runtime_;
  Result<void> started_;
  ThreadBlockingPool blocking_;
  SocketNetwork network_;
  const World world_;
};

}  // namespace ringdisk::sim
