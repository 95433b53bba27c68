// SPDX-License-Identifier: Apache-2.0
// Semaphore: a bound on what is in flight, counted in whatever unit the owner likes (requests,
// bytes). First come, first served: a large request is not overtaken by small ones. `Units` gives
// back by itself. One shard only.
//
//   SemaphoreUnits units = co_await budget.acquire(bytes);
#pragma once

#include <cstdint>
#include <utility>

#include "async/waiter.h"
#include "base/check.h"

namespace ringdisk {

class Semaphore;

// Owns units taken from a semaphore, which outlives it.
class [[nodiscard]] SemaphoreUnits {
 public:
  SemaphoreUnits() = default;
  SemaphoreUnits(Semaphore& semaphore, uint64_t units) : semaphore_(&semaphore), units_(units) {}
  SemaphoreUnits(SemaphoreUnits&& other) noexcept
      : semaphore_(std::exchange(other.semaphore_, nullptr)),
        units_(std::exchange(other.units_, 0)) {}
  SemaphoreUnits& operator=(SemaphoreUnits&& other) noexcept {
    if (this != &other) {
      release();
      semaphore_ = std::exchange(other.semaphore_, nullptr);
      units_ = std::exchange(other.units_, 0);
    }
    return *this;
  }
  ~SemaphoreUnits() { release(); }
  inline void release();

 private:
  Semaphore* semaphore_ = nullptr;
  uint64_t units_ = 0;
};

class Semaphore {
 public:
  // `units` is also the largest number that may be acquired at once.
  explicit Semaphore(uint64_t units) : total_(units), free_(units) {}
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;
  ~Semaphore() { CHECK_EQ(free_, total_); }

  uint64_t free() const { return free_; }

  class Acquire final : public Waiter {
   public:
    Acquire(Semaphore& semaphore, uint64_t units) : semaphore_(semaphore), units_(units) {
      CHECK_LE(units, semaphore.total_);
      Executor::current().note_lock();
    }
    bool await_ready() {
      if (!semaphore_.waiting_.empty() || semaphore_.free_ < units_) return false;
      semaphore_.free_ -= units_;
      return true;
    }
    template <RingdiskPromise P>
    void await_suspend(std::coroutine_handle<P> waiting) {
      suspend(waiting);
      semaphore_.waiting_.push_back(*this);
    }
    SemaphoreUnits await_resume() const { return SemaphoreUnits(semaphore_, units_); }

   private:
    friend class Semaphore;
    Semaphore& semaphore_;
    uint64_t units_;
  };

  Acquire acquire(uint64_t units) { return Acquire(*this, units); }

 private:
  friend class SemaphoreUnits;
  void give_back(uint64_t units) {
    free_ += units;
    // The units are taken on behalf of the woken ones, so that nobody slips in between.
    while (!waiting_.empty()) {
      auto& first = static_cast<Acquire&>(waiting_.front());
      if (free_ < first.units_) return;
      free_ -= first.units_;
      first.wake();
    }
  }

  uint64_t total_;
  uint64_t free_;
  WaitList waiting_;
};

inline void SemaphoreUnits::release() {
  if (semaphore_) std::exchange(semaphore_, nullptr)->give_back(units_);
}

// Mutual exclusion among coroutines of one shard.
class Mutex {
 public:
  Semaphore::Acquire lock() { return semaphore_.acquire(1); }
  bool is_locked() const { return semaphore_.free() == 0; }

 private:
  Semaphore semaphore_{1};
};

using MutexLock = SemaphoreUnits;

}  // namespace ringdisk
