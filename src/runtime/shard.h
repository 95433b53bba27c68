// SPDX-License-Identifier: Apache-2.0
// Shard: one thread, one event loop, one executor, one buffer pool. Requests stay on the shard
// where they arrive; what must happen elsewhere is spelled `co_await shard.call(fn)`: `fn` runs on
// that shard, its Result comes back here.
//
//   auto record = [&node, entry] { return node.record(entry); };      // gives a Task<T> or a
//   Result<T> T value = co_await home.call(record);
//
// One turn: deliver messages -> resume what is ready -> fire timers -> poll the loop, asleep if
// nothing is to be done. Cost: about 0.5 us a round trip between shards that are awake, 20 us when
// the other one sleeps (docs/decisions/0006); so a shard spins a little before it sleeps when
// messages have been coming quickly.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>

#include "async/executor.h"
#include "async/scope.h"
#include "async/task.h"
#include "base/limits.h"
#include "runtime/buffer.h"
#include "runtime/clock.h"
#include "runtime/loop.h"
#include "runtime/message.h"
#include "runtime/timer.h"

namespace ringdisk {

class Shard {
 public:
  Shard(uint32_t index, const Clock& clock, std::unique_ptr<Loop> loop);
  ~Shard();
  Shard(const Shard&) = delete;
  Shard& operator=(const Shard&) = delete;

  // The shard that runs the calling code.
  static Shard& current();

  // any thread, constant
  uint32_t index() const { return index_; }
  const Clock& clock() const { return clock_; }
  bool is_current() const { return Executor::has_current() && &Executor::current() == &executor_; }

  // this shard only
  Executor& executor() { return executor_; }
  Loop& loop() { return *loop_; }
  BufferPool& buffers() { return buffers_; }
  Sleep sleep(Duration length, CancelToken token = {}) {
    return Sleep(timers_, clock_.now() + length, token);
  }

  // The turn that runs now does not sleep: its driver wants to look at something. This shard only.
  void stay_awake() { stays_awake_ = true; }

  // Any thread: `message` is delivered on this shard in one of its next turns.
  void post(Message& message);

  // Runs `fn` on this shard and gives its result to the calling coroutine, which may be on any
  // shard. In place, without a message, when the caller is on this shard already. `fn` gives a
  // Task<T> or a Result<T>.
  template <class F>
  auto call(F fn) -> Task<typename std::invoke_result_t<F&>::value_type>;

  // How much is to be done here: coroutines ready to run at the start of the last turn. Any thread;
  // a hint for balancing.
  uint32_t load() const { return load_.load(std::memory_order_relaxed); }
  bool is_asleep() const { return asleep_.load(std::memory_order_relaxed); }

  // One turn of the shard, on its own thread. `may_sleep`: wait for the next event if nothing is
  // ready. At most `resumed_max` coroutines go on in it (the simulator lets few, so that shards
  // take turns often).
  void turn(bool may_sleep, uint32_t resumed_max = limits::kReadyBatchMax);
  // Whether the next turn has something to do without waiting. For the simulator.
  bool has_work() const { return executor_.has_ready() || !inbox_.is_empty(); }
  std::optional<Instant> next_timer() const { return timers_.next(); }

 private:
  void sleep_until_event();
  bool spin_for_message();
  std::optional<Duration> sleep_limit() const;

  // constant after construction
  const uint32_t index_;
  const Clock& clock_;

  // this shard only
  Executor executor_;
  std::unique_ptr<Loop> loop_;
  BufferPool buffers_;
  TimerQueue timers_;
  bool stays_awake_ = false;
  Duration spin_max_{0};  // adapts: see spin_for_message

  // any thread (atomic)
  Inbox inbox_;
  std::atomic<bool> asleep_{false};
  std::atomic<uint32_t> load_{0};
};

}  // namespace ringdisk

#include "runtime/shard_call.h"  // IWYU pragma: export
