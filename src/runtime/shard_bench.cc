// SPDX-License-Identifier: Apache-2.0
// What it costs to cross from one shard to another and back; the tables of
// docs/decisions/0006-crossing-shards.md. Two shards on two threads; needs two cores that are free.
#include "runtime/shard.h"

#include <benchmark/benchmark.h>

#include <cstdint>

#include "runtime/runtime.h"
#include "runtime/thread_blocking_pool.h"

namespace ringdisk {
namespace {

// Runs body(shard 0, shard 1) on a runtime of two shards over the loop in the benchmark's argument.
template <class Body>
void run(benchmark::State& state, Body body) {
  SystemClock clock;
  Log log(-1, LogLevel::kWarning, "");
  RuntimeOptions options;
  options.shards = 2;
  options.loop = state.range(0) == 0 ? LoopKind::kUring : LoopKind::kEpoll;
  Runtime runtime(options, clock, log);
  if (!runtime.start().ok()) {
    state.SkipWithError("this loop is not to be had here");
    return;
  }
  auto root = [&](Shard& home) { return body(state, home, *runtime.shards()[1], runtime); };
  if (!runtime.run(root).ok()) state.SkipWithError("the body failed");
}

Result<uint64_t> nothing() { return uint64_t{1}; }

Task<void> call_again_and_again(benchmark::State& state, Shard&, Shard& other, Runtime&) {
  for (auto unused : state) co_await other.call(&nothing);
}
// One after the other: whether the other shard still looks for messages or sleeps already is its
// affair.
void call_awake(benchmark::State& state) { run(state, &call_again_and_again); }

Task<void> call_after_sleep(benchmark::State& state, Shard& home, Shard& other, Runtime&) {
  for (auto unused : state) {
    state.PauseTiming();
    Result<void> slept = co_await home.sleep(std::chrono::milliseconds(1));
    benchmark::DoNotOptimize(slept.ok());
    state.ResumeTiming();
    co_await other.call(&nothing);
  }
}
// A millisecond later it sleeps in the kernel.
void call_asleep(benchmark::State& state) { run(state, &call_after_sleep); }

Task<void> call_once(Shard& other) { co_await other.call(&nothing); }
Task<void> call_many(benchmark::State& state, Shard&, Shard& other, Runtime&) {
  constexpr size_t kCalls = 64;
  auto one = [&other](size_t) { return call_once(other); };
  for (auto unused : state) co_await when_all(kCalls, one);
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kCalls));
}
void call_64_at_once(benchmark::State& state) { run(state, &call_many); }

Task<void> call_home(benchmark::State& state, Shard& home, Shard&, Runtime&) {
  for (auto unused : state) co_await home.call(&nothing);
}
void call_own_shard(benchmark::State& state) { run(state, &call_home); }

Task<void> block_often(benchmark::State& state, Shard&, Shard&, Runtime& runtime) {
  ThreadBlockingPool pool(runtime.worker_threads());
  auto job = [](Blocking) -> Result<void> { return {}; };
  for (auto unused : state) co_await run_blocking(pool, job);
}
void blocking_pool(benchmark::State& state) { run(state, &block_often); }

// 0: io_uring, 1: epoll
BENCHMARK(call_own_shard)->ArgName("epoll")->Arg(0)->UseRealTime();
BENCHMARK(call_awake)->ArgName("epoll")->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(call_64_at_once)->ArgName("epoll")->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(call_asleep)->ArgName("epoll")->Arg(0)->Arg(1)->UseRealTime()->Iterations(500);
BENCHMARK(blocking_pool)->ArgName("epoll")->Arg(0)->Arg(1)->UseRealTime();

}  // namespace
}  // namespace ringdisk
