// SPDX-License-Identifier: Apache-2.0
// Starting and ending the shards' threads. A ring belongs to the thread that makes it (single
// issuer), so each thread makes its own loop, and start() waits until all have.
#include "runtime/runtime.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <csignal>
#include <string>

#include "base/limits.h"
#include "runtime/epoll_loop.h"
#include "runtime/uring_loop.h"

namespace ringdisk {

uint32_t usable_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return std::clamp(static_cast<uint32_t>(CPU_COUNT(&cores)), 1u, limits::kShardsMax);
}

static RuntimeOptions complete(RuntimeOptions options) {
  if (options.shards == 0) options.shards = usable_cores();
  options.shards = std::min(options.shards, limits::kShardsMax);
  return options;
}

Runtime::Runtime(RuntimeOptions options, const Clock& clock, Log& log)
    : options_(complete(options)),
      clock_(clock),
      log_(log),
      worker_threads_(limits::kBlockingThreadsMax),
      all_ended_(options_.shards - 1) {}

// post() still looks at its shard after its message may have been delivered. So no shard goes
// before everyone who posted, other shards and worker threads, is done with that.
Runtime::~Runtime() {
  for (size_t i = 1; i < shards_.size(); ++i) {
    if (shards_[i]) shards_[i]->post(stops_[i]);
  }
  if (!threads_.empty()) all_ended_.wait();
  worker_threads_.join();
  may_destroy_.count_down();
  for (std::thread& thread : threads_) thread.join();
}

Result<std::unique_ptr<Loop>> Runtime::make_loop() {
  if (options_.loop != LoopKind::kEpoll) {
    Result<std::unique_ptr<Loop>> uring = make_uring_loop();
    if (uring.ok() || options_.loop == LoopKind::kUring) return uring;
  }
  return make_epoll_loop(worker_threads_);
}

Result<void> Runtime::make_shard(uint32_t index) {
  ASSIGN_OR_RETURN(std::unique_ptr<Loop> loop, make_loop());
  shards_[index] = std::make_unique<Shard>(index, clock_, std::move(loop));
  shard_pointers_[index] = shards_[index].get();
  return {};
}

// The shard ends on its own thread: frames, buffers and the ring are this thread's.
void Runtime::drive(uint32_t index) {
  Shard& shard = *shards_[index];
  while (!stops_[index].is_delivered() || shard.has_work()) shard.turn(true);
  all_ended_.count_down();
  may_destroy_.wait();
  shards_[index].reset();
}

Result<void> Runtime::start() {
  shards_.resize(options_.shards);
  shard_pointers_.resize(options_.shards);
  stops_ = std::vector<StopMessage>(options_.shards);
  std::vector<Result<void>> made(options_.shards);
  std::latch all_made(options_.shards - 1);
  made[0] = make_shard(0);
  for (uint32_t index = 1; index < options_.shards; ++index) {
    threads_.emplace_back([this, index, &made, &all_made] {
      sigset_t all;  // signals are for the main thread
      sigfillset(&all);
      pthread_sigmask(SIG_BLOCK, &all, nullptr);
      made[index] = make_shard(index);
      bool is_made = made[index].ok();
      all_made.count_down();
      if (is_made) {
        drive(index);
      } else {
        all_ended_.count_down();
      }
    });
  }
  all_made.wait();
  for (const Result<void>& result : made) {
    if (!result.ok()) return result.error();
  }
  std::string line = std::to_string(options_.shards) + " shards on ";
  line += shards_[0]->loop().name();
  if (options_.loop == LoopKind::kBest && shards_[0]->loop().name() == "epoll") {
    line += " (this kernel or sandbox has no io_uring: slower, but nothing is missing)";
  }
  log_.info(line);
  return {};
}

}  // namespace ringdisk
