// SPDX-License-Identifier: Apache-2.0
// A queue, a condition variable and threads.
#include "runtime/worker_threads.h"

#include <csignal>

namespace ringdisk {

void WorkerThreads::join() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  arrived_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void WorkerThreads::submit(Work& work) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(work);
    if (++queued_ > idle_ && threads_.size() < threads_max_) {
      threads_.emplace_back([this] { this->work(); });
    }
  }
  arrived_.notify_one();
}

bool WorkerThreads::try_withdraw(Work& work) {
  std::lock_guard lock(mutex_);
  if (!work.is_linked()) return false;
  work.unlink();
  --queued_;
  return true;
}

void WorkerThreads::work() {
  // Signals are for the main thread.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);

  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    arrived_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    --idle_;
    if (queue_.empty()) return;
    Work& work = queue_.pop_front();
    --queued_;
    lock.unlock();
    work.run(Blocking::allowed_here());
    lock.lock();
  }
}

}  // namespace ringdisk
