// SPDX-License-Identifier: Apache-2.0
// WorkerThreads: a bounded pool of threads for calls that block. Threads start when there is work
// and none is free, up to the limit, and end with the pool. Work is taken in order of arrival. Any
// thread may submit.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "base/blocking.h"
#include "base/intrusive.h"

namespace ringdisk {

// Lives where it was made (a coroutine's frame) until run() has done what makes its owner go on.
class Work : public ListLink {
 public:
  virtual void run(Blocking token) = 0;

 protected:
  ~Work() = default;
};

class WorkerThreads {
 public:
  explicit WorkerThreads(uint32_t threads_max) : threads_max_(threads_max) {}
  ~WorkerThreads() { join(); }

  // Waits for what has been submitted and ends the threads. Nothing is submitted any more.
  // Idempotent.
  void join();

  void submit(Work& work);
  // Takes `work` back if no thread has begun it.
  bool try_withdraw(Work& work);

 private:
  void work();

  const uint32_t threads_max_;

  std::mutex mutex_;  // guards all below; never held while work runs
  std::condition_variable arrived_;
  IntrusiveList<Work> queue_;
  uint32_t queued_ = 0;
  uint32_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace ringdisk
