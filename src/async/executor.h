// SPDX-License-Identifier: Apache-2.0
// Executor: the queue of coroutines that may go on, one a shard, and the only place that resumes a
// suspended coroutine. Whoever lets a coroutine go on (an event, a completion, an answer from
// another shard) puts it here; nothing resumes in the middle of somebody else's function. So the
// stack never grows with the number of awaits, and the simulator can run ready coroutines in any
// order it likes (shuffle).
//
//   make_ready(p) ──> [p3][p2][p1] ──> run_ready(): resume p1 until it suspends or settles; if it
//                                      settled, go on with whoever awaited it (a loop, not a
//                                      recursion)
//
// `Executor::current()` is the executor of the shard that runs now; it is the program's only
// thread_local.
#pragma once

#include <cstdint>
#include <vector>

#include "async/frame_pool.h"
#include "base/random.h"

namespace ringdisk {

class PromiseBase;
class Shard;

class Executor {
 public:
  Executor() = default;
  // `shard` is what this executor is part of (runtime/shard.h); null in tests that need no shard.
  explicit Executor(Shard* shard) : shard_(shard) {}
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  static Executor& current();
  static bool has_current();

  // Makes an executor the current one for a block of code. Nests (the simulator runs many shards on
  // one thread).
  class Entered {
   public:
    explicit Entered(Executor& executor);
    ~Entered();
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;

   private:
    Executor* previous_;
  };

  Shard* shard() const { return shard_; }

  // this shard only
  void make_ready(PromiseBase& coroutine);
  bool has_ready() const { return count_ != 0; }
  // Resumes up to `count_max` ready coroutines; gives how many. They run with this executor
  // entered.
  uint32_t run_ready(uint32_t count_max);

  FramePool& frames() { return frames_; }

  // How often a lock (Mutex, Semaphore, RangeLock, BlockLock) was asked for here; for budget tests.
  void note_lock() { ++locks_; }
  uint64_t locks() const { return locks_; }

  // From now on ready coroutines run in an order drawn from `seed`.
  void shuffle(uint64_t seed);

 private:
  PromiseBase& take_ready();
  void grow();

  Shard* const shard_ = nullptr;  // constant

  // this shard only
  std::vector<PromiseBase*> ring_;  // a power of two in size
  size_t first_ = 0;
  size_t count_ = 0;
  FramePool frames_;
  uint64_t locks_ = 0;
  Random random_{0};
  bool shuffled_ = false;
};

}  // namespace ringdisk
