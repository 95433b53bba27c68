// SPDX-License-Identifier: Apache-2.0
// The BlockingPool of a real process: jobs run on WorkerThreads, and their completion is a message
// to the shard they came from. Made in main, outlives the shards.
#pragma once

#include "runtime/blocking_pool.h"
#include "runtime/worker_threads.h"

namespace ringdisk {

class ThreadBlockingPool final : public BlockingPool {
 public:
  explicit ThreadBlockingPool(WorkerThreads& threads) : threads_(threads) {}
  void submit(BlockingJob& job) override { threads_.submit(job); }

 private:
  WorkerThreads& threads_;
};

}  // namespace ringdisk
