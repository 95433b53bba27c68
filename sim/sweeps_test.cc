// SPDX-License-Identifier: Apache-2.0
// The model test and the sweeps, on raw images: that they pass over what is right, and, more
// important, that they notice what is wrong: data at the wrong place, a wrong order, a flush that
// lies, an error that is lost.
#include <gtest/gtest.h>

#include "nodes/raw.h"
#include "runtime/shard.h"
#include "sim/crash_sweep.h"
#include "sim/expected_failures.h"
#include "sim/fault_sweep.h"
#include "sim/model_run.h"
#include "sim/seeds.h"
#include "sim/sim_world.h"

namespace ringdisk::sim {
namespace {

Task<void> create_raw(const World&, SharedStorage& storage, ByteCount size) {
  if (!storage.node->limits().grows) co_return;
  std::unique_ptr<StorageQueue> queue = co_await storage.node->open_queue(Shard::current());
  Result<void> resized = co_await queue->resize(size).result();
  queue.reset();
  co_await std::move(resized);
}

std::shared_ptr<DeviceNode> raw_device(std::unique_ptr<SharedStorage> storage, uint64_t offset) {
  ByteCount size(storage->node->size().value() - offset);
  auto raw = std::make_unique<RawNode>(std::move(storage), ByteCount(offset), size);
  return std::make_shared<DeviceNode>("raw", 1, std::move(raw), nullptr);
}

Task<std::shared_ptr<DeviceNode>> open_raw(const World&, std::unique_ptr<SharedStorage> storage,
                                           bool) {
  co_return raw_device(std::move(storage), 0);
}

ImageFormat raw_image() { return {"raw", &create_raw, &open_raw}; }

// A block device holds somebody else's bytes; a raw disk shows them.
ImageFormat raw_device_image() {
  ImageFormat format = raw_image();
  format.initial = [](uint64_t sector, Sector& content) { content = stale_sector(sector); };
  return format;
}

TEST(ModelRunTest, ARawDiskInAFileHoldsWhatWasWritten) {
  for_each_seed(10, [](uint64_t seed) { run_model_test(raw_image(), seed, ModelTestOptions()); });
}

TEST(ModelRunTest, ARawDiskOnADeviceWithLargeBlocksHoldsWhatWasWritten) {
  for_each_seed(10, [](uint64_t seed) {
    ModelTestOptions options;
    options.disk = SimDiskOptions::block_device(options.size, seed % 2 ? 4096 : 512);
    run_model_test(raw_device_image(), seed, options);
  });
}

Task<std::shared_ptr<DeviceNode>> open_raw_displaced(const World&,
                                                     std::unique_ptr<SharedStorage> storage,
                                                     bool read_only) {
  co_return raw_device(std::move(storage), read_only ? 512 : 0);
}

TEST(ModelRunTest, DataAtTheWrongPlaceIsNoticed) {
  ImageFormat format = raw_image();
  format.open = &open_raw_displaced;
  EXPECT_GT(failures_of([&] { run_model_test(format, 1, ModelTestOptions()); }), 0);
}

TEST(ModelRunTest, AWriteThatWasLostIsNoticed) {
  // Silent faults: what was reported as written is not there, or only in part.
  ImageFormat format = raw_image();
  int noticed = 0;
  for (uint64_t n = 5; n < 45; ++n) {
    DeviceFaultOptions options;
    options.workload.operations = 60;
    noticed += failures_of([&] {
                 SimWorld world(n, 2);
                 SimFaults faults;
                 faults.only = SimOperation::kWrite;
                 faults.fail_at = n;
                 faults.is_silent = true;
                 SimDisk disk(SimDiskOptions::file(), n, nullptr, &faults);
                 ModelDisk model(n, false);
                 Workload workload(options.workload, n, model, nullptr);
                 auto steps = [&](Shard&) -> Task<void> {
                   co_await create_image(world.world(), format, disk, options.size);
                   std::shared_ptr<DeviceNode> node =
                       co_await format.open(world.world(), storage_of(disk), false);
                   co_await workload.run(world.world(), *node);
                   co_await workload.verify(*node);
                   co_await node->close();
                 };
                 EXPECT_TRUE(world.run(steps).ok());
               }) != 0;
  }
  EXPECT_GT(noticed, 5);
}

DeviceCrashOptions crash_options() {
  DeviceCrashOptions options;
  options.workload.operations = 80;
  options.workload.length_max = 32 * 1024;
  options.sweep.points = 40;
  return options;
}

TEST(CrashSweepTest, ARawDiskKeepsWhatWasFlushed) {
  for_each_seed(4, [](uint64_t seed) {
    uint64_t crashes = run_device_crash_sweep(raw_image(), seed, crash_options());
    EXPECT_GT(crashes, 80u);
  });
}

TEST(CrashSweepTest, AFlushThatLiesIsNoticed) {
  DeviceCrashOptions options = crash_options();
  options.sweep.disks[0].flush_lies = true;
  EXPECT_GT(failures_of([&] { run_device_crash_sweep(raw_image(), 1, options); }), 0);
}

// A journal of eight records: a record is written, then the count of records in sector 0.
class CountedRecords final : public CrashScenario {
 public:
  CountedRecords(bool flushes_between, uint32_t shards) : flushes_between_(flushes_between) {
    (void)shards;
  }

  Task<void> prepare(const World&, const OpenStorages& open) override {
    co_await with_access(open, &CountedRecords::clear);
  }
  Task<void> work(const World&, const OpenStorages& open, const CrashLog&) override {
    co_await with_access(open, &CountedRecords::append);
  }
  Task<void> verify(const World&, const OpenStorages& open, uint64_t) override {
    co_await with_access(open, &CountedRecords::read_back);
  }

 private:
  using Step = Task<void> (CountedRecords::*)(StorageAccess&);

  Task<void> with_access(const OpenStorages& open, Step step) {
    std::unique_ptr<SharedStorage> storage = std::move(open()[0]);
    std::unique_ptr<StorageAccess> access =
        co_await StorageAccess::open(*storage, Shard::current());
    Result<void> done = co_await (this->*step)(*access).result();
    access.reset();
    co_await storage->node->close();
    co_await std::move(done);
  }
  Task<void> clear(StorageAccess& storage) { co_await storage.resize(ByteCount(16 * 512)); }
  Task<void> write_sector(StorageAccess& storage, uint64_t sector, uint64_t with) {
    Sector content;
    fill_stamped(content, sector * 512, with, 0);
    content[0] = static_cast<std::byte>(with);
    co_await storage.write(HostOffset(sector * 512), Bytes(content));
  }
  Task<void> append(StorageAccess& storage) {
    for (uint64_t record = 1; record <= 8; ++record) {
      co_await write_sector(storage, record, record);
      if (flushes_between_) co_await storage.flush();
      co_await write_sector(storage, 0, record);
      co_await storage.flush();
    }
  }
  Task<void> read_back(StorageAccess& storage) {
    std::vector<std::byte> all(16 * 512);
    co_await storage.read(HostOffset(0), MutableBuffers(MutableBytes(all)));
    auto count = static_cast<uint64_t>(all[0]);
    for (uint64_t record = 1; record <= count; ++record) {
      EXPECT_EQ(static_cast<uint64_t>(all[record * 512]), record) << "a counted record is missing";
    }
  }

  const bool flushes_between_;
};

TEST(CrashSweepTest, ARecordThatIsCountedBeforeItIsDurableIsNoticed) {
  CrashSweepOptions options;
  CountedRecords right(true, 2), wrong(false, 2);
  EXPECT_GT(run_crash_sweep(right, 1, options), 20u);
  EXPECT_GT(failures_of([&] { run_crash_sweep(wrong, 1, options); }), 0);
}

DeviceFaultOptions fault_options() {
  DeviceFaultOptions options;
  options.workload.operations = 40;
  options.workload.length_max = 32 * 1024;
  return options;
}

TEST(FaultSweepTest, ARawDiskReportsEveryErrorAndLosesNothing) {
  for_each_seed(2, [](uint64_t seed) {
    EXPECT_GT(run_device_fault_sweep(raw_image(), seed, fault_options()), 20u);
  });
}

TEST(FaultSweepTest, ARawDiskWhoseMediumIsGoneReportsIt) {
  for_each_seed(3, [](uint64_t seed) {
    DeviceFaultOptions options = fault_options();
    options.fail_all_after = true;
    options.errno_value = ENODEV;
    EXPECT_GT(run_device_fault_sweep(raw_image(), seed, options), 20u);
  });
}

TEST(FaultSweepTest, EveryPlaceIsTriedOnce) {
  std::vector<uint64_t> tried;
  uint64_t runs = sweep_faults(100, [&tried](uint64_t n) {
    tried.push_back(n);
    return n < 7;
  });
  EXPECT_EQ(runs, 8u);
  EXPECT_EQ(tried, (std::vector<uint64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(FaultSweepTest, AScenarioThatNeverPassesUntouchedFails) {
  EXPECT_EQ(failures_of([] { sweep_faults(10, [](uint64_t) { return true; }); }), 1);
}

}  // namespace
}  // namespace ringdisk::sim
