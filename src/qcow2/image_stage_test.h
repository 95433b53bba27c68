// SPDX-License-Identifier: Apache-2.0
// ImageStage, for tests: one small image on one simulated disk, whose requests can be made to fail.
// Each use() opens it, works with one queue on shard 0, and closes it again.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "qcow2/image_fixture_test.h"
#include "sim/sim_faults.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {

class ImageStage {
 public:
  using Use = std::function<Task<void>(DeviceQueue&)>;

  ImageStage(TestImage test_image, ByteCount size, sim::SimDiskOptions disk_options,
             uint64_t seed = 1)
      : image(std::move(test_image)), world(seed), disk(disk_options, seed, nullptr, &faults) {
    disk.poke(0, encode_test_image(image, size));
    if (image.backing_bytes != 0) backing = test_backing_disk(image.backing_bytes);
  }

  // The open's error, or the use's, or the close's.
  Result<void> use(Use body, bool read_only = false) {
    auto steps = [&](Shard& shard) { return run_steps(shard, body, read_only); };
    return world.run(steps);
  }
  // The checker's verdict on the closed image; failed expectations say what is wrong.
  void check() {
    faults.fail_at.reset();
    auto steps = [this](Shard&) { return check_test_image(world.world(), image, storage()); };
    Result<void> checked = world.run(steps);
    EXPECT_TRUE(checked.ok()) << text_of(checked);
  }
  std::string text_of(const Result<void>& result) {
    return result.ok() ? "" : world.diagnostics().describe(result.error());
  }
  std::unique_ptr<SharedStorage> storage() {
    return std::make_unique<SharedStorage>(
        std::make_unique<sim::SimStorageNode>(disk, "disk.qcow2", 1));
  }

  uint64_t get64(uint64_t at) const { return entry_on(disk, at); }
  void put64(uint64_t at, uint64_t value) { put_entry_on(disk, at, value); }

  const TestImage image;
  sim::SimWorld world;
  sim::SimFaults faults;
  sim::SimDisk disk;
  std::shared_ptr<sim::SimDisk> backing;

 private:
  Task<void> run_steps(Shard& shard, const Use& body, bool read_only) {
    std::shared_ptr<DeviceNode> node =
        co_await open_test_image(world.world(), image, backing, storage(), read_only);
    Result<std::unique_ptr<DeviceQueue>> queue = co_await node->open_queue(shard).result();
    Result<void> used;
    if (queue.ok()) {
      used = co_await body(*queue.value()).result();
      queue.value().reset();
    } else {
      used = queue.error();
    }
    Result<void> closed = co_await node->close().result();
    co_await std::move(used);
    co_await std::move(closed);
  }
};

inline Task<void> write_stamped(DeviceQueue& queue, uint64_t offset, uint64_t length,
                                uint8_t stamp) {
  std::vector<std::byte> bytes(length, std::byte{stamp});
  co_await queue.write(GuestOffset(offset), ConstBuffers(Bytes(bytes)), WriteOptions());
}

inline Task<void> expect_stamped(DeviceQueue& queue, uint64_t offset, uint64_t length,
                                 uint8_t stamp) {
  std::vector<std::byte> bytes(length, std::byte{0xee});
  co_await queue.read(GuestOffset(offset), MutableBuffers(MutableBytes(bytes)));
  EXPECT_EQ(bytes, std::vector<std::byte>(length, std::byte{stamp})) << "at " << offset;
}

}  // namespace ringdisk::qcow2
