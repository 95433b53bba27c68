// SPDX-License-Identifier: Apache-2.0
// World: what main() builds and hands down, and what the simulator builds in its place. Everything
// here outlives whoever holds the reference. Any thread.
#pragma once

#include <span>

namespace ringdisk {

class BlockingPool;
class Clock;
class Diagnostics;
class Log;
class Network;
class Shard;

struct World {
  const Clock& clock;
  Log& log;
  Diagnostics& diagnostics;
  BlockingPool& blocking;
  Network& network;
  std::span<Shard* const> shards;  // at least one; index = Shard::index()
};

}  // namespace ringdisk
