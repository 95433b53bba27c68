// SPDX-License-Identifier: Apache-2.0
// The steps of a model test.
#include "sim/model_run.h"

#include <gtest/gtest.h>

#include "sim/sim_world.h"

namespace ringdisk::sim {
namespace {

Task<void> work_and_verify(const World& world, DeviceNode& node, Workload& workload) {
  co_await workload.run(world, node);
  co_await workload.verify(node);
}

Task<void> run_steps(const World& world, const ImageFormat& format, SimDisk& disk, ByteCount size,
                     Workload& workload) {
  co_await create_image(world, format, disk, size);
  std::shared_ptr<DeviceNode> node = co_await format.open(world, storage_of(disk), false);
  EXPECT_EQ(node->size().value(), size.value());
  Result<void> worked = co_await work_and_verify(world, *node, workload).result();
  co_await node->close();
  co_await std::move(worked);
  node = co_await format.open(world, storage_of(disk, true), true);
  Result<void> verified = co_await workload.verify(*node).result();
  co_await node->close();
  co_await std::move(verified);
  if (format.check) co_await format.check(world, storage_of(disk));
}

}  // namespace

std::unique_ptr<SharedStorage> storage_of(SimDisk& disk, bool read_only) {
  auto node = std::make_unique<SimStorageNode>(disk, "sim", 1, read_only);
  return std::make_unique<SharedStorage>(std::move(node));
}

Task<void> create_image(const World& world, const ImageFormat& format, SimDisk& disk,
                        ByteCount size) {
  std::unique_ptr<SharedStorage> storage = storage_of(disk);
  Result<void> created = co_await format.create(world, *storage, size).result();
  std::unique_ptr<StorageQueue> queue = co_await storage->node->open_queue(Shard::current());
  co_await queue->flush();
  queue.reset();
  co_await storage->node->close();
  co_await std::move(created);
}

void run_model_test(const ImageFormat& format, uint64_t seed, const ModelTestOptions& options) {
  SimWorld world(seed, options.shards);
  SimDisk disk(options.disk, world.draw_seed());
  ModelDisk model(seed, false, format.initial);
  model.set_discard_unit(format.discard_unit, options.size.value());
  Workload workload(options.workload, world.draw_seed(), model, nullptr);
  auto steps = [&](Shard&) {
    return run_steps(world.world(), format, disk, options.size, workload);
  };
  Result<void> done = world.run(steps);
  EXPECT_TRUE(done.ok()) << world.diagnostics().describe(done.error());
}

}  // namespace ringdisk::sim
