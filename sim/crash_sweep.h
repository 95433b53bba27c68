// SPDX-License-Identifier: Apache-2.0
// The crash sweep: a workload runs once over simulated disks that keep a log; then the power fails
// after any prefix of what the disks were asked to do, any legal subset of what was not flushed is
// kept (crash_log.h), and what is left is opened and verified in a new world. Thousands of crashes
// cost one run of the workload.
//
//   run_crash_sweep(scenario, seed, options)      any: several files, operations of several steps
//   run_device_crash_sweep(format, seed, …)       random requests to a disk, from several shards
//
// A failure names the seed, the event and the subset seed; RINGDISK_SEED runs that seed's sweep
// again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "sim/image_format.h"
#include "sim/sim_storage.h"
#include "sim/workload.h"

namespace ringdisk::sim {

// Opens the disks of a scenario, in order; as often as one likes, after those of before are closed.
using OpenStorages = std::function<std::vector<std::unique_ptr<SharedStorage>>()>;

struct CrashSweepOptions {
  uint32_t shards = 2;
  uint64_t points =
      150;  // events after which the power fails, drawn; all of them where there are fewer
  uint64_t subsets =
      4;  // draws of what survives at each; the first loses all it may, the second keeps all
  std::vector<SimDiskOptions> disks = {SimDiskOptions::file()};
};

// What is crashed. All tasks run on shard 0 of their world. `open` opens the disks.
class CrashScenario {
 public:
  virtual ~CrashScenario() = default;
  // Makes what is there before the power can fail; all of it is durable afterwards.
  virtual Task<void> prepare(const World& world, const OpenStorages& open) = 0;
  // What the power fails in. Closes everything in the end.
  virtual Task<void> work(const World& world, const OpenStorages& open, const CrashLog& log) = 0;
  // Opens what the crash left and looks at it; reports by failed expectations or an error.
  virtual Task<void> verify(const World& world, const OpenStorages& open, uint64_t event) = 0;
};

// Crashes that all sweeps of this process have tried; test_main.cc prints those of each test, and
// scripts/run-tests their sum.
uint64_t crash_points_tried();
// `points` of a sweep that is there for their number: fewer where a sanitizer makes each slow.
uint64_t points_in_this_build(uint64_t points);

// Gives the number of crashes that were tried.
uint64_t run_crash_sweep(CrashScenario& scenario, uint64_t seed, const CrashSweepOptions& options);

struct DeviceCrashOptions {
  ByteCount size{1 << 20};
  WorkloadOptions workload;
  CrashSweepOptions sweep;
};

// After every crash format.check finds nothing, the image opens, each sector holds what its last
// flush covered or something that was written since. After some of them more random requests
// follow, which must not disturb what is there.
uint64_t run_device_crash_sweep(const ImageFormat& format, uint64_t seed,
                                const DeviceCrashOptions& options);

}  // namespace ringdisk::sim
