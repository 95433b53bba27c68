// SPDX-License-Identifier: Apache-2.0
// Runtime: the shards of a real process, one thread each, and the loops they drive. main() makes
// one, runs its root task on shard 0 and lets the runtime go when that has ended.
//
//   RuntimeOptions options;                                  // as many shards as the process may
//   use cores Runtime runtime(options, clock, log); RETURN_IF_ERROR(runtime.start()); Result<int>
//   exit = runtime.run(root);                    // root: Shard& -> Task<int>, or Result<int>
//
// Shards 1 … n-1 have threads of their own, shard 0 is driven by the thread that calls run().
#pragma once

#include <latch>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "base/log.h"
#include "runtime/shard.h"
#include "runtime/worker_threads.h"

namespace ringdisk {

enum class LoopKind : uint8_t {
  kBest,   // io_uring, or epoll where there is none
  kUring,  // fail without it
  kEpoll,
};

struct RuntimeOptions {
  uint32_t shards = 0;  // 0: the cores this process may run on
  LoopKind loop = LoopKind::kBest;
};

class Runtime {
 public:
  Runtime(RuntimeOptions options, const Clock& clock, Log& log);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Makes the shards and their threads. On the thread that will call run().
  Result<void> start();
  std::span<Shard* const> shards() const { return shard_pointers_; }
  WorkerThreads& worker_threads() { return worker_threads_; }

  // Drives shard 0 with `root(shard)`, a Task<T>, until it has ended. Other shards run beside it.
  template <class F>
  auto run(F root) -> Result<typename std::invoke_result_t<F&, Shard&>::value_type> {
    using T = typename std::invoke_result_t<F&, Shard&>::value_type;
    Executor::Entered entered(shards_[0]->executor());
    RootTask<T> task(run_root(root, *shards_[0]));
    while (!task.is_settled()) shards_[0]->turn(true);
    return task.take_result();
  }

 private:
  // The shard looks up when the root task has ended, rather than sleep in that very turn.
  template <class F, class T = typename std::invoke_result_t<F&, Shard&>::value_type>
  static Task<T> run_root(F& root, Shard& shard) {
    Result<T> result = co_await root(shard).result();
    shard.stay_awake();
    if constexpr (std::is_void_v<T>) {
      co_await std::move(result);
    } else {
      co_return std::move(result);
    }
  }
  Result<std::unique_ptr<Loop>> make_loop();
  Result<void> make_shard(uint32_t index);
  void drive(uint32_t index);

  const RuntimeOptions options_;
  const Clock& clock_;
  Log& log_;
  WorkerThreads worker_threads_;

  // Tells a shard's thread to end; delivered there.
  class StopMessage final : public Message {
   public:
    void deliver() override {
      delivered_ = true;
      Shard::current().stay_awake();
    }
    bool is_delivered() const { return delivered_; }

   private:
    bool delivered_ = false;
  };

  // constant after start
  std::vector<StopMessage> stops_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<Shard*> shard_pointers_;
  std::vector<std::thread> threads_;

  // The end: all shards' threads have left their loops -> worker threads are joined -> shards go.
  std::latch all_ended_;
  std::latch may_destroy_{1};
};

// The cores this process may run on (its affinity mask), at most kShardsMax.
uint32_t usable_cores();

}  // namespace ringdisk
