// SPDX-License-Identifier: Apache-2.0
// BlockingPool: threads for what may block and has no asynchronous form (opening, locking, name look-up, SEEK_HOLE on a slow
// file system; all file I/O where there is no io_uring). The simulator's pool runs jobs on its one thread.
//
//   auto open_it = [&](Blocking token) -> Result<int> { return open_file(token, path); };
//   int fd = co_await run_blocking(world.blocking, open_it);
#pragma once

#include <optional>
#include <type_traits>
#include <utility>

#include "async/task.h"
#include "async/waiter.h"
#include "base/blocking.h"
#include "runtime/message.h"
#include "runtime/shard.h"

namespace ringdisk {

// A piece of work on its way through the pool; lives in the frame of who waits for it. deliver() is its completion.
class BlockingJob : public Message {
 public:
  virtual void run(Blocking token) = 0;  // on a thread of the pool
  Shard& origin() const { return origin_; }

 protected:
  explicit BlockingJob(Shard& origin) : origin_(origin) {}
  ~BlockingJob() = default;

 private:
  friend class BlockingQueue;
  Shard& origin_;
  BlockingJob* next_job_ = nullptr;
};

class BlockingPool {
 public:
  virtual ~BlockingPool() = default;
  // Any shard. Runs job.run() somewhere, then posts the job to its origin.
  virtual void submit(BlockingJob& job) = 0;
};

namespace blocking_internal {
template <class F>
class Call final : public BlockingJob {
 public:
  using ResultType = std::invoke_result_t<F&, Blocking>;

  Call(BlockingPool& pool, F& fn) : BlockingJob(Shard::current()), pool_(pool), fn_(fn) {}
  void run(Blocking token) override { result_.emplace(fn_(token)); }
  void deliver() override { waiter_.wake(); }

  bool await_ready() const noexcept { return false; }
  template <RingdiskPromise P>
  void await_suspend(std::coroutine_handle<P> waiting) {
    waiter_.suspend(waiting);
    pool_.submit(*this);
  }
  ResultType await_resume() { return std::move(*result_); }

 private:
  BlockingPool& pool_;
  F& fn_;
  Waiter waiter_;
  std::optional<ResultType> result_;
};
}  // namespace blocking_internal

// Runs `fn(Blocking)`, a plain function that gives a Result<T>, on a thread of the pool.
template <class F>
auto run_blocking(BlockingPool& pool, F fn)
    -> Task<typename std::invoke_result_t<F&, Blocking>::value_type> {
  using T = typename std::invoke_result_t<F&, Blocking>::value_type;
  blocking_internal::Call<F> call(pool, fn);
  Result<T> result = co_await call;
  if constexpr (std::is_void_v<T>) {
    co_await std::move(result);
  } else {
    co_return std::move(result);
  }
}

}  // namespace ringdisk
