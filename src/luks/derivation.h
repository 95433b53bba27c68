// SPDX-License-Identifier: Apache-2.0
// Key derivations take seconds, some minutes, and no library of ours can end one. They run on the
// blocking pool; whoever is told to stop waits for none (runtime/abandonable.h). All that is
// written of a header is written after its derivations, so a stop leaves what was there.
#pragma once

#include "runtime/abandonable.h"
#include "runtime/world.h"

namespace ringdisk::luks {

// `fn(Blocking)` owns what it uses, but for what the world outlives. Tokens are the first shard's;
// elsewhere nobody hears of them.
template <class F>
auto run_derivation(const World& world, CancelToken stop, F fn) {
  const bool hears = &Shard::current() == world.shards.front();
  return run_abandonable(world.blocking, hears ? stop : CancelToken(), std::move(fn));
}

}  // namespace ringdisk::luks
