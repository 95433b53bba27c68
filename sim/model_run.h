// SPDX-License-Identifier: Apache-2.0
// The model test: random requests from several queues on several simulated shards to a disk of a
// format, each read compared with the model; then everything read back, and once more after closing
// and opening again.
//
//   TEST(Qcow2ModelTest, HoldsWhatWasWritten) {
//     for_each_seed(100, [](uint64_t seed) { run_model_test(image, seed, options); });
//   }
#pragma once

#include <cstdint>

#include "sim/image_format.h"
#include "sim/sim_storage.h"
#include "sim/workload.h"

namespace ringdisk::sim {

struct ModelTestOptions {
  ByteCount size{4 << 20};
  uint32_t shards = 3;
  SimDiskOptions disk = SimDiskOptions::file();
  WorkloadOptions workload;
};

// Failed expectations say what is wrong; the seed is in the trace of for_each_seed.
void run_model_test(const ImageFormat& format, uint64_t seed, const ModelTestOptions& options);

// For tests that need the steps by themselves: a node over a storage of `disk`, created or opened,
// each on shard 0 of a world.
Task<void> create_image(const World& world, const ImageFormat& format, SimDisk& disk,
                        ByteCount size);
std::unique_ptr<SharedStorage> storage_of(SimDisk& disk, bool read_only = false);

}  // namespace ringdisk::sim
