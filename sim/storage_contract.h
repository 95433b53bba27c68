// SPDX-License-Identifier: Apache-2.0
// The contract of a storage (block/storage.h) as a suite of tests, run for every driver:
//
//   RINGDISK_STORAGE_CONTRACT(mem, &open_mem);                         on the simulator
//   RINGDISK_STORAGE_CONTRACT_IN(file_epoll, &open_file, &in_epoll);   in one of your own
//
// makes the tests StorageContract.<clause>/mem. What is asked goes through StorageAccess, so the
// driver sees only what it may be asked. A storage that forgets (null) cannot pass.
#pragma once

#include <functional>
#include <memory>

#include "block/storage_access.h"
#include "runtime/world.h"

namespace ringdisk::sim {

// A new storage of at least `size` bytes (of any content; a regular file may be shorter, it grows),
// on the calling shard.
using OpenNewStorage =
    std::function<Task<std::unique_ptr<StorageNode>>(const World& world, ByteCount size)>;

// Runs `body` as a root task on shard 0 of a new world, to its end.
using RunInWorld = std::function<Result<void>(
    uint64_t seed, const std::function<Task<void>(const World& world)>& body)>;

// A simulated world of three shards.
Result<void> run_in_sim_world(uint64_t seed,
                              const std::function<Task<void>(const World& world)>& body);

// Registers the tests; before main. Always true.
bool register_storage_contract(const char* name, OpenNewStorage open, RunInWorld run);

}  // namespace ringdisk::sim

#define RINGDISK_STORAGE_CONTRACT_IN(name, open, run)          \
  [[maybe_unused]] static const bool storage_contract_##name = \
      ::ringdisk::sim::register_storage_contract(#name, open, run)
#define RINGDISK_STORAGE_CONTRACT(name, open) \
  RINGDISK_STORAGE_CONTRACT_IN(name, open, &::ringdisk::sim::run_in_sim_world)
