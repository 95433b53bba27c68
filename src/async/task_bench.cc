// SPDX-License-Identifier: Apache-2.0
// What a Task costs beside a plain call; the table of docs/decisions/0002-tasks.md. The counter
// "system_allocations" must stay at the few frames of the first round: frames come from the shard's
// pool.
#include "async/task.h"

#include <benchmark/benchmark.h>

#include <cerrno>
#include <cstdint>

#include "async/event.h"
#include "async/executor.h"
#include "async/scope.h"
#include "async/yield.h"
#include "base/result.h"

namespace ringdisk {
namespace {

// Called through a pointer that the compiler cannot see through, like a driver.
template <class F>
F* hidden(F* function) {
  benchmark::DoNotOptimize(function);
  return function;
}

// --- plain functions -----------------------------------------------------------------------------

__attribute__((noinline)) Result<uint64_t> plain(uint64_t value, int depth) {
  benchmark::DoNotOptimize(value);
  if (depth > 1) {
    ASSIGN_OR_RETURN(uint64_t below, plain(value, depth - 1));
    return below + 1;
  }
  if (value == 0) return Error::from_errno(EIO, "plain");
  return value;
}

void plain_result(benchmark::State& state) {
  const int depth = static_cast<int>(state.range(0));
  for (auto unused : state) benchmark::DoNotOptimize(plain(1, depth).ok());
}
void plain_error(benchmark::State& state) {
  const int depth = static_cast<int>(state.range(0));
  for (auto unused : state) benchmark::DoNotOptimize(plain(0, depth).ok());
}

// --- tasks ---------------------------------------------------------------------------------------

__attribute__((noinline)) Task<uint64_t> task(uint64_t value, int depth) {
  benchmark::DoNotOptimize(value);
  if (depth > 1) {
    uint64_t below = co_await task(value, depth - 1);
    co_return below + 1;
  }
  if (value == 0) co_return Error::from_errno(EIO, "task");
  co_return value;
}

Task<void> await_tasks(benchmark::State& state, uint64_t value) {
  auto make = hidden(&task);
  const int depth = static_cast<int>(state.range(0));
  for (auto unused : state) {
    Result<uint64_t> result = co_await make(value, depth).result();
    benchmark::DoNotOptimize(result.ok());
  }
}

// Runs `root` and reports what it asked of the frame pool.
template <class Make>
void run(benchmark::State& state, Make make) {
  Executor executor;
  Executor::Entered entered(executor);
  {
    RootTask<void> root(make());
    while (!root.is_settled()) executor.run_ready(256);
  }
  state.counters["frames"] = benchmark::Counter(
      static_cast<double>(executor.frames().allocated_total()), benchmark::Counter::kAvgIterations);
  state.counters["live_max"] = static_cast<double>(executor.frames().live_max());
  state.counters["system_allocations"] =
      static_cast<double>(executor.frames().system_allocations());
}

void task_value(benchmark::State& state) {
  run(state, [&] { return await_tasks(state, 1); });
}
void task_error(benchmark::State& state) {
  run(state, [&] { return await_tasks(state, 0); });
}

Task<void> nothing() { co_return; }
Task<void> await_pieces(benchmark::State& state) {
  const auto count = static_cast<size_t>(state.range(0));
  auto one = [](size_t) { return nothing(); };
  for (auto unused : state) co_await when_all(count, one);
}
void when_all_pieces(benchmark::State& state) {
  run(state, [&] { return await_pieces(state); });
}

Task<void> spawn_some(Scope& scope, const int64_t& count) {
  for (int64_t i = 0; i < count; ++i) scope.spawn(nothing());
  co_return;
}
Task<void> await_scopes(benchmark::State& state) {
  const int64_t count = state.range(0);
  for (auto unused : state) co_await with_scope(&spawn_some, count);
}
void scope_children(benchmark::State& state) {
  run(state, [&] { return await_scopes(state); });
}

// Suspending and going on through the executor.
Task<void> await_turns(benchmark::State& state) {
  for (auto unused : state) co_await Yield();
}
void suspend_and_resume(benchmark::State& state) {
  run(state, [&] { return await_turns(state); });
}

// --- sizes ---------------------------------------------------------------------------------------

// What the frames of a root task take of the pool (in steps of 64 bytes): once it is gone, its
// classes have a free frame.
template <class T>
size_t frame_bytes(Task<T> (*make)()) {
  Executor executor;
  Executor::Entered entered(executor);
  FramePool& pool = executor.frames();
  { RootTask<T> root(make()); }
  size_t bytes = 0;
  for (size_t size = 64; size <= 4096; size += 64) {
    const uint64_t before = pool.system_allocations();
    void* frame = pool.allocate(size);
    if (pool.system_allocations() == before) bytes += size;
    pool.free(frame, size);
  }
  return bytes;
}

Task<uint64_t> leaf() { co_return 1; }
Task<uint64_t> awaits_one() {
  auto below = hidden(&leaf);
  co_return co_await below().result();
}
Task<void> awaits_pieces() {
  auto one = [](size_t) { return nothing(); };
  co_await when_all(2, one);
}

// No time, only counters.
void frame_sizes(benchmark::State& state) {
  for (auto unused : state) benchmark::DoNotOptimize(state.iterations());
  state.counters["leaf"] = static_cast<double>(frame_bytes(&leaf));
  state.counters["one_await_and_its_leaf"] = static_cast<double>(frame_bytes(&awaits_one));
  state.counters["when_all_and_its_leaf"] = static_cast<double>(frame_bytes(&awaits_pieces));
}

BENCHMARK(frame_sizes)->Iterations(1);
BENCHMARK(plain_result)->Arg(1)->Arg(4);
BENCHMARK(plain_error)->Arg(1)->Arg(4);
BENCHMARK(task_value)->Arg(1)->Arg(4);
BENCHMARK(task_error)->Arg(1)->Arg(4);
BENCHMARK(when_all_pieces)->Arg(1)->Arg(8);
BENCHMARK(scope_children)->Arg(1)->Arg(8);
BENCHMARK(suspend_and_resume);

}  // namespace
}  // namespace ringdisk
