// SPDX-License-Identifier: Apache-2.0
// BlockingPool: threads for what may block and has no asynchronous form (opening, locking, name
// look-up, SEEK_HOLE on a slow file system; all file I/O where there is no io_uring). The
// simulator's pool runs jobs on its one thread.
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
#include "runtime/worker_threads.h"

namespace ringdisk {

// A piece of work on its way through the pool; lives in the frame of who waits for it. The pool
// calls run() on one of its threads, once; that does the work and posts the job back to the shard
// it came from, where deliver() is its completion.
class BlockingJob : public Work, public Message {
 public:
  void run(Blocking token) final {
    do_work(token);
    origin_.post(*this);  // the last thing: the job may be gone right after
  }

 protected:
  explicit BlockingJob(Shard& origin) : origin_(origin) {}
  ~BlockingJob() = default;
  virtual void do_work(Blocking token) = 0;

 private:
  Shard& origin_;
};

class BlockingPool {
 public:
  virtual ~BlockingPool() = default;
  // Any shard. Calls job.run() somewhere.
  virtual void submit(BlockingJob& job) = 0;
};

namespace blocking_internal {
template <class F>
class Call final : public BlockingJob {
 public:
  using ResultType = std::invoke_result_t<F&, Blocking>;

  Call(BlockingPool& pool, F& fn) : BlockingJob(Shard::current()), pool_(pool), fn_(fn) {}
  void do_work(Blocking token) override { result_.emplace(fn_(token)); }
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
