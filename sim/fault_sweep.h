// SPDX-License-Identifier: Apache-2.0
// The fault sweep: a scenario runs again and again, in a world of its own each time; in run n the
// n-th request fails, n = 0, 1, … until a run passes untouched. So every place where an error can
// come from is tried, once for each.
//
//   sweep_faults(10'000, [](uint64_t n) { … return whether something was made to fail …; });
//   run_device_fault_sweep(format, seed, options)       random requests to a disk of a format
//
// A failure names n; a hang names its seed (sim_world.h). The scenario checks what it is about; a
// run of the device sweep checks that no error was lost: what was reported as written and flushed
// is there, then and after a crash; the errno is the one that was injected; the image checks clean.
#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <optional>

#include "sim/image_format.h"
#include "sim/sim_storage.h"
#include "sim/workload.h"

namespace ringdisk::sim {

// run(n) gives whether a failure was injected. Gives the number of runs, the untouched one
// included. Stops at the first n whose run fails a test; `runs_max` without an untouched run is a
// failure.
template <class Run>
uint64_t sweep_faults(uint64_t runs_max, Run run) {
  for (uint64_t n = 0; n < runs_max; ++n) {
    SCOPED_TRACE(::testing::Message() << "with failure number " << n);
    bool touched = run(n);
    if (!touched || ::testing::Test::HasFailure()) return n + 1;
  }
  ADD_FAILURE() << "no run of " << runs_max << " passed untouched: the scenario retries for ever?";
  return runs_max;
}

struct DeviceFaultOptions {
  ByteCount size{1 << 20};
  uint32_t shards = 2;
  int errno_value = EIO;
  bool fail_all_after = false;  // the disk is gone from the n-th request on
  // Count and fail requests of this kind alone.
  std::optional<SimOperation> only;
  uint64_t step = 1;  // tries every step-th n (a drawn one first), for long workloads
  SimDiskOptions disk = SimDiskOptions::file();
  WorkloadOptions workload;
};

// Gives the number of runs.
uint64_t run_device_fault_sweep(const ImageFormat& format, uint64_t seed,
                                const DeviceFaultOptions& options);

}  // namespace ringdisk::sim
