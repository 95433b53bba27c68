// SPDX-License-Identifier: Apache-2.0
// The scheduler of the simulator: who runs next, and when time passes.
#include "sim/sim_world.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "sim/sim_loop.h"

namespace ringdisk::sim {
namespace {

// At most so many coroutines go on in one turn: few, so that shards take turns often.
constexpr uint64_t kResumedMax = 4;

std::vector<std::unique_ptr<Shard>> make_shards(uint32_t count, const Clock& clock,
                                                Random& random) {
  std::vector<std::unique_ptr<Shard>> shards;
  for (uint32_t index = 0; index < count; ++index) {
    shards.push_back(std::make_unique<Shard>(index, clock, std::make_unique<SimLoop>()));
    shards.back()->executor().shuffle(random.next());
  }
  return shards;
}

std::vector<Shard*> pointers_to(const std::vector<std::unique_ptr<Shard>>& shards) {
  std::vector<Shard*> pointers;
  for (const auto& shard : shards) pointers.push_back(shard.get());
  return pointers;
}

}  // namespace

SimWorld::SimWorld(uint64_t seed, uint32_t shard_count)
    : seed_(seed),
      random_(mix_seed(seed, shard_count)),
      shards_(make_shards(shard_count, clock_, random_)),
      shard_pointers_(pointers_to(shards_)),
      network_(random_.next()),
      world_{clock_, log_, diagnostics_, blocking_, network_, shard_pointers_} {
  CHECK_GT(shard_count, 0u);
  note_seed(seed);
}

SimWorld::~SimWorld() = default;

bool SimWorld::can_run(const Shard& shard) const {
  if (shard.has_work()) return true;
  std::optional<Instant> timer = shard.next_timer();
  return timer && *timer <= clock_.now();
}

bool SimWorld::step() {
  runnable_.clear();
  for (const auto& shard : shards_) {
    if (can_run(*shard)) runnable_.push_back(shard->index());
  }
  uint64_t choices = runnable_.size() + blocking_.waiting();
  if (choices == 0) return false;
  if (++steps_ > kStepsMax) stuck("it takes steps without end");
  uint64_t drawn = random_.below(choices);
  if (drawn >= runnable_.size()) {
    blocking_.run(drawn - runnable_.size());
  } else {
    shards_[runnable_[drawn]]->turn(false, 1 + static_cast<uint32_t>(random_.below(kResumedMax)));
  }
  return true;
}

bool SimWorld::jump_to_next_timer() {
  std::optional<Instant> earliest;
  for (const auto& shard : shards_) {
    std::optional<Instant> timer = shard->next_timer();
    if (timer && (!earliest || *timer < *earliest)) earliest = timer;
  }
  if (!earliest) return false;
  if (earliest->since_start > kTimeMax) stuck("virtual time passes without end");
  clock_.advance_to(*earliest);
  return true;
}

void SimWorld::stuck(const char* why) const {
  fprintf(stderr,
          "simulated world hangs: %s. seed %" PRIu64 ", %zu shards, step %" PRIu64
          ", virtual time %" PRId64 " ns; again: RINGDISK_SEED=%" PRIu64 "\n",
          why, seed_, shards_.size(), steps_,
          static_cast<int64_t>(clock_.now().since_start.count()), seed_);
  fflush(stderr);
  std::abort();
}

}  // namespace ringdisk::sim
