// SPDX-License-Identifier: Apache-2.0
// SimWorld: a whole world on the test's one thread: any number of shards, virtual time, a network,
// a pool for blocking jobs.
//
//   SimWorld world(seed, 2);                         // two shards
//   Result<int> got = world.run(&read_header);       // Task<int> read_header(Shard&), on shard 0
//   Result<void> all = world.run_on_all(&hammer);    // Task<void> hammer(Shard&), on all at once
//
// One step: draw a shard that can run, or a waiting blocking job, and give it a turn in which at
// most a few coroutines go on, in drawn order. So every interleaving of shards at the points where
// coroutines suspend can happen, and the same seed gives the same one. When nothing can run the
// clock jumps to the earliest timer. When there is no timer either and the root task is not done,
// the world hangs: that, and a world that does not come to an end, prints the seed and aborts (a
// frame that waits cannot be destroyed, so the test process cannot go on). What this cannot show:
// races between instructions of two threads. TSan over the real loops is for those.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "async/scope.h"
#include "base/diagnostics.h"
#include "base/log.h"
#include "base/random.h"
#include "runtime/shard.h"
#include "runtime/world.h"
#include "sim/seeds.h"
#include "sim/sim_blocking_pool.h"
#include "sim/sim_clock.h"
#include "sim/sim_network.h"

namespace ringdisk::sim {

class SimWorld {
 public:
  explicit SimWorld(uint64_t seed = seed_or(1), uint32_t shard_count = 1);
  ~SimWorld();
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  uint64_t seed() const { return seed_; }
  const World& world() const { return world_; }
  SimClock& clock() { return clock_; }
  SimNetwork& network() { return network_; }
  Diagnostics& diagnostics() { return diagnostics_; }
  uint32_t shard_count() const { return static_cast<uint32_t>(shards_.size()); }
  Shard& shard(uint32_t index) { return *shards_[index]; }
  // A number for another generator (a storage, an operation generator).
  uint64_t draw_seed() { return random_.next(); }
  uint64_t steps() const { return steps_; }

  // Runs make(shard), which gives a Task<T>, as the root task of a shard until it is done and
  // nothing else can run. `make` lives until then.
  template <class F>
  auto run_on(uint32_t index, F make)
      -> Result<typename std::invoke_result_t<F&, Shard&>::value_type>;
  template <class F>
  auto run(F make) -> Result<typename std::invoke_result_t<F&, Shard&>::value_type> {
    return run_on(0, std::move(make));
  }
  // make(shard) -> Task<void> on every shard at once; the first error is the result.
  template <class F>
  Result<void> run_on_all(F make);

  // Takes steps, the clock's jumps among them, until `done` says so. Aborts where it never will.
  template <class Done>
  void run_until(Done done) {
    while (!done()) {
      if (!step() && !jump_to_next_timer()) stuck("nothing can run and no timer is left");
    }
  }

  // More steps or virtual time in one run than any test needs: something goes round in circles.
  static constexpr uint64_t kStepsMax = 50'000'000;
  static constexpr Duration kTimeMax = std::chrono::hours(24 * 30);

 private:
  // One drawn turn or job; false: nothing can run at this time.
  bool step();
  bool jump_to_next_timer();
  bool can_run(const Shard& shard) const;
  [[noreturn]] void stuck(const char* why) const;
  template <class F>
  static Task<void> call_there(Shard& there, F& make);
  template <class F>
  static Task<void> call_all(std::span<Shard* const> shards, F& make);

  const uint64_t seed_;
  Random random_;
  SimClock clock_;
  Log log_{-1, LogLevel::kWarning, ""};
  Diagnostics diagnostics_;
  SimBlockingPool blocking_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<Shard*> shard_pointers_;
  SimNetwork network_;
  const World world_;
  std::vector<uint32_t> runnable_;
  uint64_t steps_ = 0;
};

template <class F>
auto SimWorld::run_on(uint32_t index, F make)
    -> Result<typename std::invoke_result_t<F&, Shard&>::value_type> {
  using T = typename std::invoke_result_t<F&, Shard&>::value_type;
  CHECK(!Executor::has_current());
  Shard& home = shard(index);
  std::optional<RootTask<T>> root;
  {
    Executor::Entered entered(home.executor());
    root.emplace(make(home));
  }
  run_until([&root] { return root->is_settled(); });
  while (step()) continue;
  Executor::Entered entered(home.executor());
  Result<T> result = root->take_result();
  root.reset();
  return result;
}

template <class F>
Task<void> SimWorld::call_there(Shard& there, F& make) {
  auto body = [&there, &make] { return make(there); };
  co_await there.call(body);
}

template <class F>
Task<void> SimWorld::call_all(std::span<Shard* const> shards, F& make) {
  auto one = [&shards, &make](size_t index) { return call_there(*shards[index], make); };
  co_await when_all(shards.size(), one);
}

template <class F>
Result<void> SimWorld::run_on_all(F make) {
  auto all = [this, &make](Shard&) { return call_all(world_.shards, make); };
  return run_on(0, all);
}

}  // namespace ringdisk::sim
