// SPDX-License-Identifier: Apache-2.0
// ImageFormat: how a test makes an empty image on a storage and opens it as a disk: what the model
// test, the sweeps and the device contract need to know of raw, qcow2, or qcow2 over a backing
// image.
//
//   ImageFormat qcow2_image{"qcow2", &create_qcow2, &open_qcow2};
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "block/device_queue.h"
#include "block/storage_access.h"
#include "runtime/world.h"
#include "sim/model_disk.h"

namespace ringdisk::sim {

struct ImageFormat {
  std::string name;
  // Makes an image of a disk of `size` bytes on the calling shard. What it writes need not be
  // durable when it is done.
  std::function<Task<void>(const World& world, SharedStorage& storage, ByteCount size)> create;
  // Opens it. The device closes the storage, also when opening fails.
  std::function<Task<std::shared_ptr<DeviceNode>>(
      const World& world, std::unique_ptr<SharedStorage> storage, bool read_only)>
      open;
  // Opens an image of several storages, of which `create` and `check` get the first alone. Empty:
  // there is one, and `open` opens it. Only for crash sweeps, which have a disk for each.
  std::function<Task<std::shared_ptr<DeviceNode>>(
      const World& world, std::vector<std::unique_ptr<SharedStorage>> storages)>
      open_all = {};
  // What a sector of a new disk reads as (a backing image's content); empty: zeros.
  ModelDisk::Initial initial = {};
  // A discard makes zeros of the units of so many bytes that it holds whole; 0: it need not.
  uint64_t discard_unit = 0;
  // Looks at a closed image after a crash or a fault; an error, or a failed expectation, says that
  // it is damaged more than the format permits. Empty: there is nothing to check.
  std::function<Task<void>(const World& world, std::unique_ptr<SharedStorage> storage)> check = {};
};

}  // namespace ringdisk::sim
