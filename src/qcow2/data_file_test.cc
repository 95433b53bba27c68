// SPDX-License-Identifier: Apache-2.0
// Images whose guest data lies in a file of its own: the disk as with any image, the power failing
// in two files at once, a raw data file that is the disk, and what is refused.
#include <gtest/gtest.h>

#include "qcow2/data_file_fixture_test.h"
#include "qcow2/layout/data_file_entry.h"
#include "sim/crash_sweep.h"
#include "sim/device_contract.h"
#include "sim/expected_failures.h"
#include "sim/fault_sweep.h"
#include "sim/model_run.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

// Which of the two files is the disk that a test is about; the other one is here, as long as the
// image is not made anew. A data file holds what nobody wrote, unless it has to be the disk.
enum class Tested : uint8_t { kImage, kDataFile };

struct OtherFile {
  std::unique_ptr<sim::SimDisk> disk;

  void make(const TestImage& image, Tested tested) {
    sim::SimDiskOptions options = sim::SimDiskOptions::file();
    if (tested == Tested::kImage && !image.data_file_is_raw) {
      options.size = ByteCount(64 << 20);
      options.stale = true;
    }
    disk = std::make_unique<sim::SimDisk>(options, 5);
  }
};

Task<void> create_beside(TestImage image, std::shared_ptr<OtherFile> other, ByteCount size) {
  std::unique_ptr<SharedStorage> storage = storage_on(*other->disk);
  co_await create_test_image(image, *storage, size);
  co_await storage->node->close();
}

Task<void> check_beside(const World& world, TestImage image, std::shared_ptr<OtherFile> other,
                        std::unique_ptr<SharedStorage> data) {
  co_await data->node->close();
  co_await check_test_image(world, image, storage_on(*other->disk));
}

sim::ImageFormat data_file_format(TestImage image, Tested tested) {
  auto other = std::make_shared<OtherFile>();
  const bool is_image = tested == Tested::kImage;
  sim::ImageFormat format = test_format(image);
  format.name = "qcow2 with a data file";
  format.create = [=](const World&, SharedStorage& storage, ByteCount size) {
    other->make(image, tested);
    return is_image ? create_test_image(image, storage, size) : create_beside(image, other, size);
  };
  format.open = [=](const World& world, std::unique_ptr<SharedStorage> storage, bool read_only) {
    if (!is_image) {
      return open_with_data(world, image, storage_on(*other->disk), std::move(storage), read_only);
    }
    return open_with_data(world, image, std::move(storage), data_on(*other->disk), read_only);
  };
  if (is_image) return format;
  format.check = [=](const World& world, std::unique_ptr<SharedStorage> data) {
    return check_beside(world, image, other, std::move(data));
  };
  return format;
}

sim::DeviceCrashOptions two_disk_options(uint64_t seed) {
  sim::DeviceCrashOptions options;
  options.workload.operations = 100;
  options.workload.length_max = 48 * 1024;
  options.workload.flushes = 15;
  options.sweep.shards = 1 + seed % 3;
  options.sweep.points = 25;
  options.sweep.disks = {sim::SimDiskOptions::file(), sim::SimDiskOptions::file()};
  return options;
}

RINGDISK_DEVICE_CONTRACT(qcow2_data_file, data_file_format(data_file_image(1), Tested::kDataFile),
                         sim::SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(qcow2_raw_data_file,
                         data_file_format(data_file_image(3), Tested::kDataFile),
                         sim::SimDiskOptions::file());

TEST(DataFileModelTest, HoldsWhatWasWritten) {
  sim::for_each_seed(60, [](uint64_t seed) {
    sim::ModelTestOptions options;
    run_model_test(data_file_format(data_file_image(seed), Tested::kImage), seed, options);
  });
}

TEST(DataFileCrashTest, ACrashLosesNothingThatWasFlushedInEitherFile) {
  sim::for_each_seed(15, [](uint64_t seed) {
    const TestImage image = data_file_image(seed);
    EXPECT_GT(run_device_crash_sweep(two_disk_format(image), seed, two_disk_options(seed)), 0u);
  });
}

// The sweep finds the mistake that it is there for.
TEST(DataFileCrashTest, ADataFileThatIsNotFlushedIsFound) {
  TestImage image = data_file_image(2);
  image.planted_bug = PlantedBug::kDataFileNotFlushed;
  auto sweep = [&] { run_device_crash_sweep(two_disk_format(image), 2, two_disk_options(2)); };
  EXPECT_NE(sim::failures_of(sweep), 0);
}

TEST(DataFileFaultTest, EveryFailureOfEitherFileIsReportedAndTheImageStaysRight) {
  sim::for_each_seed(2, [](uint64_t seed) {
    sim::DeviceFaultOptions options;
    options.workload.operations = 60;
    options.workload.errors_allowed = true;
    options.step = 5;
    for (Tested tested : {Tested::kImage, Tested::kDataFile}) {
      const sim::ImageFormat format = data_file_format(data_file_image(seed), tested);
      EXPECT_GT(run_device_fault_sweep(format, seed, options), 1u);
    }
  });
}

// --- entries

TEST(DataFileEntryTest, MemoryNamesWhatTheDiskNames) {
  const GuestOffset first(0), other(65536);
  const L2Entry at_zero(kCopied, 0), at_other(kCopied | 65536, 0);
  for (const auto& [entry, at] : {std::pair(at_zero, first), std::pair(at_other, other)}) {
    const L2Entry known = entry_in_data_file(entry, at);
    EXPECT_TRUE(known.is_writable_in_place());
    EXPECT_EQ(known.host().value(), kInDataFile | at.value());
    EXPECT_EQ(persistent_in_data_file(known), entry);
  }
  EXPECT_EQ(entry_in_data_file(L2Entry::zero(), other), L2Entry::zero());
  EXPECT_EQ(entry_in_data_file(L2Entry::unallocated(), first), L2Entry::unallocated());
}

TEST(DataFileEntryTest, AnotherPlaceIsRejectedAndStaysOnTheDisk) {
  const Geometry geometry(16, 4);
  const L2Entry entry(kCopied | 65536, 0);
  const L2Entry rejected = entry_in_data_file(entry, GuestOffset(2 * 65536));
  EXPECT_EQ(rejected.kind(geometry, true), EntryKind::kInvalid);
  EXPECT_EQ(persistent_in_data_file(rejected), entry);
}

// --- one image and its data file

class DataFileTest : public ::testing::Test {
 protected:
  void make(TestImage image) {
    image.has_data_file = true;
    image_ = image;
    auto create = [&](Shard&) { return create_and_close(); };
    ASSERT_TRUE(world_.run(create).ok());
  }
  using UseQueue = std::function<Task<void>(DeviceQueue&)>;
  Result<void> use(UseQueue steps) {
    auto work = [&](Shard&) { return use_queue(steps); };
    return world_.run(work);
  }
  // The front of the data file.
  Content data_bytes(uint64_t bytes) {
    Content content(bytes);
    auto look = [&](Shard&) { return read_data(content); };
    EXPECT_TRUE(world_.run(look).ok());
    return content;
  }
  void expect_sound() {
    auto check = [&](Shard&) {
      return check_test_image(world_.world(), image_, storage_on(disk_));
    };
    EXPECT_TRUE(world_.run(check).ok());
  }
  sim::SimDisk& data() { return data_; }

 private:
  Task<void> create_and_close() {
    std::unique_ptr<SharedStorage> storage = storage_on(disk_);
    co_await create_test_image(image_, *storage, kEditedSize);
    co_await storage->node->close();
  }
  Task<void> use_queue(UseQueue steps) {
    std::shared_ptr<DeviceNode> device =
        co_await open_with_data(world_.world(), image_, storage_on(disk_), data_on(data_), false);
    Result<std::unique_ptr<DeviceQueue>> queue =
        co_await device->open_queue(Shard::current()).result();
    Result<void> used;
    if (queue.ok()) {
      used = co_await steps(*queue.value()).result();
      std::unique_ptr<DeviceQueue> ended = std::move(queue).value();
    } else {
      used = queue.error();
    }
    Result<void> closed = co_await device->close().result();
    co_await std::move(used);
    co_await std::move(closed);
  }
  Task<void> read_data(Content& content) {
    std::unique_ptr<SharedStorage> storage = data_on(data_);
    std::unique_ptr<StorageAccess> access =
        co_await StorageAccess::open(*storage, Shard::current());
    co_await access->read(HostOffset(0), MutableBuffers(MutableBytes(content)));
    access.reset();
    co_await storage->node->close();
  }

  sim::SimWorld world_{7, 1};
  sim::SimDisk disk_{sim::SimDiskOptions::file(), 7};
  sim::SimDisk data_{sim::SimDiskOptions::file(), 8};
  TestImage image_;
};

TEST_F(DataFileTest, ARawDataFileIsTheDisk) {
  TestImage image;
  image.data_file_is_raw = true;
  make(image);
  Content content(kEditedSize.value());
  const UseQueue change = [&](DeviceQueue& queue) { return change_content(queue, 9, content); };
  ASSERT_TRUE(use(change).ok());
  EXPECT_TRUE(data_bytes(kEditedSize.value()) == content);
  expect_sound();
}

Task<void> write_and_flush(DeviceQueue& queue) {
  const Content bytes(8192, std::byte{7});
  co_await queue.write(GuestOffset(4096), ConstBuffers(Bytes(bytes)), WriteOptions());
  co_await queue.flush();
}

TEST_F(DataFileTest, AFailureOfTheDataFileFailsTheRequestThatNeedsIt) {
  make(TestImage());
  auto run = [this](uint64_t n) {
    sim::SimFaults faults;
    faults.fail_at = n;
    data().set_faults(&faults);
    const Result<void> used = use(&write_and_flush);
    data().set_faults(nullptr);
    EXPECT_EQ(used.ok(), faults.failed == 0);
    if (!used.ok()) {
      EXPECT_EQ(used.error().errno_value, EIO);
    }
    return faults.failed != 0;
  };
  EXPECT_GT(sim::sweep_faults(100, run), 1u);
  expect_sound();
}

TEST_F(DataFileTest, NothingOfTheGuestsLiesInTheImage) {
  make(TestImage());
  ASSERT_TRUE(use(&write_and_flush).ok());
  EXPECT_EQ(data_bytes(12288)[4096], std::byte{7});
  EXPECT_EQ(data_bytes(12288)[12287], std::byte{7});
  expect_sound();
}

}  // namespace
}  // namespace ringdisk::qcow2
