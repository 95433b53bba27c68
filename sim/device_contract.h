// SPDX-License-Identifier: Apache-2.0
// The contract of a virtual disk (block/device_queue.h) as a suite of
// tests, run for every format:
//
//   RINGDISK_DEVICE_CONTRACT(qcow2_64k, qcow2_image(), SimDiskOptions::file());
//
// in a test file makes the tests DeviceContract.<clause>/qcow2_64k. Each opens a new image on a
// simulated disk in a world of three shards, for a few seeds.
#pragma once

#include "sim/image_format.h"
#include "sim/sim_storage.h"

namespace ringdisk::sim {

// The size of the disks: no multiple of a cluster, so the last one is cut by the end; a multiple of
// every block. A device of no size gets twice as much.
inline constexpr uint64_t kContractDiskBytes = (3 << 20) + 5 * 4096;

// Registers the tests; before main. Always true, so that a variable can be initialised with it.
bool register_device_contract(const char* name, ImageFormat format, SimDiskOptions disk);

}  // namespace ringdisk::sim

#define RINGDISK_DEVICE_CONTRACT(name, format, disk)          \
  [[maybe_unused]] static const bool device_contract_##name = \
      ::ringdisk::sim::register_device_contract(#name, format, disk)
