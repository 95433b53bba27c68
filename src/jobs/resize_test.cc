// SPDX-License-Identifier: Apache-2.0
// A disk that grows over vm state and a backing image with content beyond its end: the power
// failing anywhere in it, every request of it failing once. Either the disk is as large as it was,
// or what it gained reads as zeros.
#include "jobs/resize.h"

#include <gtest/gtest.h>

#include "qcow2/admin.h"
#include "qcow2/edit/edit_fixture_test.h"

namespace ringdisk {
namespace {

using qcow2::Content;
using qcow2::TestImage;

// Not at the end of a cluster, and much less than the backing image and the new size.
constexpr ByteCount kOldSize((200 << 10) + 512);
constexpr ByteCount kNewSize(2 << 20);
constexpr uint64_t kBackingBytes = 400 << 10;
constexpr uint64_t kVmStateBytes = 20 << 10;
constexpr uint64_t kSizeField = 24;  // in the header

class Growth {
 public:
  Growth(TestImage image, Preallocation how)
      : image_(image), how_(how), admin_(make_qcow2_admin()) {
    image_.backing_bytes = kBackingBytes;
    backing_ = qcow2::test_backing_disk(kBackingBytes);
  }

  Task<void> prepare(const World& world, sim::OpenStorages open) {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    co_await qcow2::create_test_image(image_, *storage, ByteCount(vm_state_at() + kVmStateBytes));
    co_await storage->node->close();
    co_await leave_vm_state(world, open);
    std::shared_ptr<DeviceNode> disk = co_await open_disk(world, open, false);
    Result<void> written = co_await write_some(*disk).result();
    co_await disk->close();
    co_await std::move(written);
    before_ = co_await read_all(world, open);
    after_ = before_;
    after_.resize(kNewSize.value());
  }
  Task<void> grow(const World& world, sim::OpenStorages open) {
    const Drivers drivers;
    const OpenGate gate(world.diagnostics);
    Graph graph(world, drivers, gate);
    ResizedImage image;
    image.open_file = [this, &open] { return open_file(open); };
    image.open_disk = [this, &world, &open] { return open_disk(world, open, false); };
    co_await resize_disk(graph, image, kOldSize, kNewSize, how_);
  }
  Task<void> verify(const World& world, sim::OpenStorages open) {
    world.diagnostics.add_node("disk.qcow2");
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    co_await qcow2::expect_permitted_damage(world, std::move(storage));
    co_await expect_content(world, open);
    co_await qcow2::expect_repaired_at_open(world, image_, open);
    co_await expect_content(world, open);
  }
  // Behind the cluster in which the disk ended, everything it gained has a place.
  Task<void> expect_places(const World& world, sim::OpenStorages open) {
    std::shared_ptr<DeviceNode> disk = co_await open_disk(world, open, true);
    {
      std::unique_ptr<DeviceQueue> queue = co_await disk->open_queue(Shard::current());
      const uint64_t cluster = uint64_t{1} << image_.cluster_bits;
      GuestOffset at = GuestOffset(kOldSize.value()).align_up(cluster);
      const GuestOffset end(kNewSize.value());
      while (at < end) {
        BlockStatus status = co_await queue->block_status(GuestRange::between(at, end), 0);
        EXPECT_TRUE(status.host.has_value()) << at.value();
        at = at + status.length;
      }
    }
    co_await disk->close();
  }
  Task<void> expect_content(const World& world, sim::OpenStorages open) {
    Content content = co_await read_all(world, open);
    EXPECT_TRUE(content == before_ || content == after_) << content.size() << " bytes";
    is_grown = content == after_;
  }

  bool is_grown = false;  // when last looked at

 private:
  Task<ResizedImage::File> open_file(sim::OpenStorages open) {
    ResizedImage::File file;
    file.admin = admin_.get();
    file.storage = std::move(open().front());
    co_return std::move(file);
  }
  Task<std::shared_ptr<DeviceNode>> open_disk(const World& world, sim::OpenStorages open,
                                              bool read_only) {
    return qcow2::open_test_image(world, image_, backing_, std::move(open().front()), read_only);
  }
  // Behind the end of the disk, from where an L2 table begins; if that can be, in what it gains.
  uint64_t vm_state_at() const { return image_.cluster_bits <= 11 ? 1 << 20 : 8 << 20; }
  Task<void> leave_vm_state(const World& world, sim::OpenStorages open) {
    std::shared_ptr<DeviceNode> disk = co_await open_disk(world, open, false);
    Result<void> written =
        co_await write(*disk, GuestOffset(vm_state_at()), kVmStateBytes).result();
    co_await disk->close();
    co_await std::move(written);
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    Result<void> cut = co_await cut_disk(*storage).result();
    co_await storage->node->close();
    co_await std::move(cut);
  }
  static Task<void> cut_disk(SharedStorage& storage) {
    std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
    std::vector<std::byte> size(8);
    store_be64(&size[0], kOldSize.value());
    co_await access->write(HostOffset(kSizeField), ConstBuffers(Bytes(size)));
    co_await access->flush();
  }
  static Task<void> write(DeviceNode& disk, GuestOffset at, uint64_t length) {
    std::unique_ptr<DeviceQueue> queue = co_await disk.open_queue(Shard::current());
    std::vector<std::byte> bytes(length, std::byte{0x77});
    co_await queue->write(at, ConstBuffers(Bytes(bytes)), WriteOptions());
    co_await queue->flush();
  }
  Task<void> write_some(DeviceNode& disk) {
    std::unique_ptr<DeviceQueue> queue = co_await disk.open_queue(Shard::current());
    std::vector<std::byte> bytes(3000, std::byte{0x17});
    co_await queue->write(GuestOffset(5000), ConstBuffers(Bytes(bytes)), WriteOptions());
    co_await queue->flush();
  }
  Task<Content> read_all(const World& world, sim::OpenStorages open) {
    std::shared_ptr<DeviceNode> disk = co_await open_disk(world, open, true);
    Content content(disk->size().value());
    std::unique_ptr<DeviceQueue> queue = co_await disk->open_queue(Shard::current());
    Result<void> read =
        co_await queue->read(GuestOffset(0), MutableBuffers(MutableBytes(content))).result();
    queue.reset();
    co_await disk->close();
    co_await std::move(read);
    co_return std::move(content);
  }

  TestImage image_;
  Preallocation how_;
  std::shared_ptr<sim::SimDisk> backing_;
  std::unique_ptr<FormatAdmin> admin_;
  Content before_, after_;
};

TestImage image_of(uint64_t seed) {
  TestImage image = qcow2::drawn_edited_image(seed);
  image.cluster_bits = 9 + seed % 5;
  return image;
}

Preallocation drawn_preallocation(uint64_t seed) {
  constexpr Preallocation kAll[] = {Preallocation::kOff, Preallocation::kMetadata,
                                    Preallocation::kFalloc, Preallocation::kFull};
  return kAll[seed % 4];
}

class GrowthCrash final : public sim::CrashScenario {
 public:
  GrowthCrash(TestImage image, Preallocation how) : growth_(image, how) {}
  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    return growth_.prepare(world, open);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    return growth_.grow(world, open);
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    return growth_.verify(world, open);
  }

 private:
  Growth growth_;
};

TEST(ResizeCrashTest, WhatADiskGainsNeverShowsTheBackingImage) {
  sim::for_each_seed(8, [](uint64_t seed) {
    GrowthCrash scenario(image_of(seed), drawn_preallocation(seed));
    sim::CrashSweepOptions options;
    options.shards = 1;
    options.points = 60;
    EXPECT_GT(run_crash_sweep(scenario, seed, options), 0u);
  });
}

// Whether a failure was injected.
bool grow_with_fault(TestImage image, uint64_t seed, uint64_t n) {
  sim::SimWorld world(seed, 1);
  sim::SimDisk disk(sim::SimDiskOptions::file(), seed);
  const sim::OpenStorages open = [&disk] {
    std::vector<std::unique_ptr<SharedStorage>> storages;
    storages.push_back(qcow2::storage_on(disk));
    return storages;
  };
  Growth growth(image, drawn_preallocation(seed));
  auto prepare = [&](Shard&) { return growth.prepare(world.world(), open); };
  EXPECT_TRUE(world.run(prepare).ok());
  sim::SimFaults faults;
  faults.fail_at = n;
  disk.set_faults(&faults);
  auto work = [&](Shard&) { return growth.grow(world.world(), open); };
  const Result<void> grown = world.run(work);
  disk.set_faults(nullptr);
  if (!grown.ok()) {
    EXPECT_EQ(grown.error().errno_value, EIO);
  }
  if (faults.failed == 0) {
    EXPECT_TRUE(grown.ok());
  }
  auto verify = [&](Shard&) { return growth.verify(world.world(), open); };
  EXPECT_TRUE(world.run(verify).ok());
  if (grown.ok()) {
    EXPECT_TRUE(growth.is_grown);
  }
  return faults.failed != 0;
}

TEST(ResizeTest, WhatADiskGainsHasItsPlaceWhereThatWasAskedFor) {
  for (Preallocation how :
       {Preallocation::kMetadata, Preallocation::kFalloc, Preallocation::kFull}) {
    for (uint64_t seed : {1, 2, 3, 4, 5, 6}) {
      SCOPED_TRACE(seed);
      sim::SimWorld world(seed, 1);
      sim::SimDisk disk(sim::SimDiskOptions::file(), seed);
      const sim::OpenStorages open = [&disk] {
        std::vector<std::unique_ptr<SharedStorage>> storages;
        storages.push_back(qcow2::storage_on(disk));
        return storages;
      };
      Growth growth(image_of(seed), how);
      auto life = [&](Shard&) -> Task<void> {
        co_await growth.prepare(world.world(), open);
        co_await growth.grow(world.world(), open);
        co_await growth.expect_content(world.world(), open);
        co_await growth.expect_places(world.world(), open);
      };
      EXPECT_TRUE(world.run(life).ok());
      EXPECT_TRUE(growth.is_grown);
    }
  }
}

TEST(ResizeFaultTest, EveryFailureIsToldAndShowsNothing) {
  for (uint64_t seed : {1, 2, 3, 4}) {
    auto run = [&](uint64_t n) { return grow_with_fault(image_of(seed), seed, n); };
    EXPECT_GT(sim::sweep_faults(2000, run), 10u);
  }
}

}  // namespace
}  // namespace ringdisk
