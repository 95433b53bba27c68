// SPDX-License-Identifier: Apache-2.0
// SimBlockingPool: the pool of threads that may block, without threads. A job waits here until
// SimWorld draws it, which may be long after jobs that came later; it then runs on the test's
// thread, outside of every shard, and goes home as a message.
#pragma once

#include <cstddef>
#include <vector>

#include "runtime/blocking_pool.h"

namespace ringdisk::sim {

class SimBlockingPool final : public BlockingPool {
 public:
  void submit(BlockingJob& job) override { waiting_.push_back(&job); }

  size_t waiting() const { return waiting_.size(); }
  // `which` < waiting().
  void run(size_t which) {
    CHECK_LT(which, waiting_.size());
    BlockingJob& job = *waiting_[which];
    waiting_[which] = waiting_.back();
    waiting_.pop_back();
    job.run(Blocking::allowed_here());
  }

 private:
  std::vector<BlockingJob*> waiting_;
};

}  // namespace ringdisk::sim
