// SPDX-License-Identifier: Apache-2.0
// Whole images on the simulator: random requests from several shards against a model of the disk,
// over geometries, storages and backing images; every place of failure; the power failing anywhere.
#include <gtest/gtest.h>

#include "qcow2/image_fixture_test.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"
#include "sim/model_run.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

using sim::for_each_seed;
using sim::run_device_crash_sweep;
using sim::run_device_fault_sweep;
using sim::run_model_test;

// A geometry of its own for every seed: clusters of 512 bytes to 64 KiB, all refcount widths.
TestImage drawn_image(uint64_t seed) {
  Random random(seed);
  TestImage image;
  image.version = random.chance(25) ? 2 : 3;
  image.cluster_bits = static_cast<uint32_t>(9 + random.below(8));
  image.refcount_order = static_cast<uint32_t>(random.below(7));
  return image;
}

// Extended L2 entries: subclusters of 512 bytes to 8 KiB.
TestImage drawn_extended_image(uint64_t seed) {
  TestImage image = drawn_image(seed);
  image.version = 3;
  image.extended_l2 = true;
  image.cluster_bits = static_cast<uint32_t>(14 + seed % 5);
  return image;
}

TEST(Qcow2ModelTest, HoldsWhatWasWrittenInEveryGeometry) {
  for_each_seed(60, [](uint64_t seed) {
    sim::ModelTestOptions options;
    run_model_test(test_format(drawn_image(seed)), seed, options);
  });
}

TEST(Qcow2ModelTest, HoldsWhatWasWrittenOverABackingImage) {
  for_each_seed(40, [](uint64_t seed) {
    sim::ModelTestOptions options;
    TestImage image = drawn_image(seed);
    image.backing_bytes = options.size.value() * 6 / 10 / 4096 * 4096 + 512 * (seed % 8);
    run_model_test(test_format(image), seed, options);
  });
}

TEST(Qcow2ModelTest, HoldsWhatWasWrittenOnABlockDevice) {
  for_each_seed(40, [](uint64_t seed) {
    sim::ModelTestOptions options;
    TestImage image = drawn_image(seed);
    const uint32_t block = seed % 2 ? 4096 : 512;
    options.disk = sim::SimDiskOptions::block_device(ByteCount(16 << 20), block);
    image.leaks_allowed = false;
    run_model_test(test_format(image), seed, options);
  });
}

TEST(Qcow2ModelTest, HoldsWhatWasWrittenWithHardlyAnyMemoryForTables) {
  for_each_seed(40, [](uint64_t seed) {
    sim::ModelTestOptions options;
    TestImage image = drawn_image(seed);
    image.cluster_bits = 9;
    image.slice_memory = "512";
    options.size = ByteCount(16 << 20);
    options.workload.operations = 500;
    run_model_test(test_format(image), seed, options);
  });
}

TEST(Qcow2ModelTest, LargeClustersOfASmallDisk) {
  for_each_seed(10, [](uint64_t seed) {
    sim::ModelTestOptions options;
    TestImage image = drawn_image(seed);
    image.cluster_bits = 21;
    options.size = ByteCount((8 << 20) + 512 * (seed % 7));
    options.workload.operations = 100;
    run_model_test(test_format(image), seed, options);
  });
}

TEST(Qcow2ModelTest, HoldsWithLazyRefcounts) {
  for_each_seed(20, [](uint64_t seed) {
    sim::ModelTestOptions options;
    TestImage image = drawn_image(seed);
    image.version = 3;
    image.lazy_refcounts = true;
    run_model_test(test_format(image), seed, options);
  });
}

TEST(Qcow2ModelTest, HoldsWhatWasWrittenInSubclusters) {
  for_each_seed(60, [](uint64_t seed) {
    sim::ModelTestOptions options;
    run_model_test(test_format(drawn_extended_image(seed)), seed, options);
  });
}

TEST(Qcow2ModelTest, HoldsWhatWasWrittenInSubclustersOverABackingImage) {
  for_each_seed(60, [](uint64_t seed) {
    sim::ModelTestOptions options;
    TestImage image = drawn_extended_image(seed);
    image.backing_bytes = options.size.value() * 6 / 10 / 4096 * 4096 + 512 * (seed % 8);
    options.workload.compressed = seed % 2 == 0 ? 20 : 0;
    options.workload.writes -= seed % 2 == 0 ? 20 : 0;
    run_model_test(test_format(image), seed, options);
  });
}

TEST(Qcow2ModelTest, HoldsWhatWasWrittenInSubclustersOnABlockDevice) {
  for_each_seed(40, [](uint64_t seed) {
    sim::ModelTestOptions options;
    TestImage image = drawn_extended_image(seed);
    options.disk = sim::SimDiskOptions::block_device(ByteCount(64 << 20), seed % 2 ? 4096 : 512);
    image.leaks_allowed = false;
    run_model_test(test_format(image), seed, options);
  });
}

TEST(Qcow2ModelTest, HoldsSubclustersWithHardlyAnyMemoryForTables) {
  for_each_seed(20, [](uint64_t seed) {
    sim::ModelTestOptions options;
    TestImage image = drawn_extended_image(seed);
    image.cluster_bits = 14;
    image.slice_memory = "512";
    options.size = ByteCount(1 << 30);
    options.workload.operations = 500;
    run_model_test(test_format(image), seed, options);
  });
}

// Zeros are found in what is written, whatever else goes on.
TEST(Qcow2ModelTest, HoldsWhatWasWrittenWithZerosDetected) {
  for_each_seed(40, [](uint64_t seed) {
    sim::ModelTestOptions options;
    options.workload.writes = 60;
    options.workload.zero_runs = 60;
    TestImage image = drawn_image(seed);
    image.policy.detect_zeroes = seed % 2 == 0 ? DetectZeroes::kOn : DetectZeroes::kUnmap;
    image.policy.discards = seed % 4 != 0;
    if (seed % 3 == 0) image.backing_bytes = options.size.value() / 2;
    run_model_test(test_format(image), seed, options);
  });
}

// Both compression types, over every geometry: versions, refcounts of one bit, backing images.
TestImage drawn_compressed_image(uint64_t seed) {
  TestImage image = drawn_image(seed);
  if (image.version == 3 && seed % 2 == 0) image.compression = Compression::kZstd;
  return image;
}

TEST(Qcow2ModelTest, HoldsCompressedClustersAmongAllOthers) {
  for_each_seed(60, [](uint64_t seed) {
    sim::ModelTestOptions options;
    options.workload.compressed = 30;
    options.workload.writes = 20;
    TestImage image = drawn_compressed_image(seed);
    if (seed % 3 == 0) image.backing_bytes = options.size.value() / 2;
    run_model_test(test_format(image), seed, options);
  });
}

TEST(Qcow2ModelTest, HoldsCompressedClustersOnABlockDevice) {
  for_each_seed(30, [](uint64_t seed) {
    sim::ModelTestOptions options;
    options.workload.compressed = 30;
    options.workload.writes = 20;
    options.disk = sim::SimDiskOptions::block_device(ByteCount(16 << 20), seed % 2 ? 4096 : 512);
    run_model_test(test_format(drawn_compressed_image(seed)), seed, options);
  });
}

sim::DeviceCrashOptions crash_options(uint64_t seed) {
  sim::DeviceCrashOptions options;
  options.workload.operations = 100;
  options.workload.length_max = 48 * 1024;
  options.workload.flushes = 15;
  options.sweep.shards = 1 + seed % 3;
  options.sweep.points = 25;
  return options;
}

TEST(Qcow2CrashTest, ACrashAnywhereLeaksAtWorst) {
  for_each_seed(10, [](uint64_t seed) {
    TestImage image = drawn_image(seed);
    image.leaks_allowed = true;
    EXPECT_GT(run_device_crash_sweep(test_format(image), seed, crash_options(seed)), 0u);
  });
}

TEST(Qcow2CrashTest, ACrashAnywhereLeaksAtWorstOverABackingImage) {
  for_each_seed(5, [](uint64_t seed) {
    TestImage image = drawn_image(seed);
    image.leaks_allowed = true;
    image.backing_bytes = 600 << 10;
    EXPECT_GT(run_device_crash_sweep(test_format(image), seed, crash_options(seed)), 0u);
  });
}

TEST(Qcow2CrashTest, ACrashAnywhereShowsNoStaleBytesOfABlockDevice) {
  for_each_seed(5, [](uint64_t seed) {
    TestImage image = drawn_image(seed);
    image.leaks_allowed = true;
    sim::DeviceCrashOptions options = crash_options(seed);
    options.sweep.disks = {sim::SimDiskOptions::block_device(ByteCount(4 << 20), 512)};
    EXPECT_GT(run_device_crash_sweep(test_format(image), seed, options), 0u);
  });
}

TEST(Qcow2CrashTest, ACrashAnywhereLeaksAtWorstWithSubclusters) {
  for_each_seed(12, [](uint64_t seed) {
    TestImage image = drawn_extended_image(seed);
    image.leaks_allowed = true;
    if (seed % 2 == 0) image.backing_bytes = 600 << 10;
    sim::DeviceCrashOptions options = crash_options(seed);
    if (seed % 3 == 0) {
      options.workload.compressed = 30;
      options.workload.writes = 25;
    }
    if (seed % 4 == 1) {
      options.sweep.disks = {sim::SimDiskOptions::block_device(ByteCount(16 << 20), 512)};
    }
    EXPECT_GT(run_device_crash_sweep(test_format(image), seed, options), 0u);
  });
}

// Streams share sectors and host clusters with their neighbours.
TEST(Qcow2CrashTest, ACrashAmongCompressedWritesLeaksAtWorst) {
  for_each_seed(12, [](uint64_t seed) {
    TestImage image = drawn_compressed_image(seed);
    image.leaks_allowed = true;
    sim::DeviceCrashOptions options = crash_options(seed);
    options.workload.compressed = 35;
    options.workload.writes = 20;
    if (seed % 4 == 0) {
      options.sweep.disks = {sim::SimDiskOptions::block_device(ByteCount(4 << 20), 512)};
    }
    EXPECT_GT(run_device_crash_sweep(test_format(image), seed, options), 0u);
  });
}

TestImage lazy_image(TestImage image) {
  image.version = 3;
  image.lazy_refcounts = true;
  image.leaks_allowed = true;
  return image;
}

TEST(Qcow2CrashTest, LazyRefcountsAreCountedAnewAfterACrash) {
  for_each_seed(12, [](uint64_t seed) {
    const TestImage image = lazy_image(drawn_image(seed));
    sim::DeviceCrashOptions options = crash_options(seed);
    options.workload.compressed = seed % 2 == 0 ? 20 : 0;
    options.workload.discards = 20;
    EXPECT_GT(run_device_crash_sweep(test_format(image), seed, options), 0u);
  });
}

TEST(Qcow2CrashTest, LazyRefcountsAreCountedAnewWhileTheirTableGrows) {
  for_each_seed(4, [](uint64_t seed) {
    TestImage image;
    image.cluster_bits = 9;
    image.refcount_order = 6;
    sim::DeviceCrashOptions options = crash_options(seed);
    options.size = ByteCount(4 << 20);
    options.workload.writes = 70;
    options.workload.length_max = 160 * 1024;
    EXPECT_GT(run_device_crash_sweep(test_format(lazy_image(image)), seed, options), 0u);
  });
}

// The refcount table starts with room for 2 MiB of file and has to grow under way.
TEST(Qcow2CrashTest, ACrashWhileTheRefcountTableGrowsLeaksAtWorst) {
  for_each_seed(6, [](uint64_t seed) {
    TestImage image;
    image.cluster_bits = 9;
    image.refcount_order = 6;
    image.leaks_allowed = true;
    sim::DeviceCrashOptions options = crash_options(seed);
    options.size = ByteCount(4 << 20);
    options.workload.writes = 70;
    options.workload.length_max = 160 * 1024;
    EXPECT_GT(run_device_crash_sweep(test_format(image), seed, options), 0u);
  });
}

TEST(Qcow2FaultTest, EveryFailureIsReportedAndTheImageStaysRight) {
  for_each_seed(3, [](uint64_t seed) {
    TestImage image = drawn_image(seed);
    image.leaks_allowed = true;
    if (seed % 2 == 0) image.backing_bytes = 600 << 10;
    sim::DeviceFaultOptions options;
    options.workload.operations = 60;
    options.workload.errors_allowed = true;
    options.step = 5;
    EXPECT_GT(run_device_fault_sweep(test_format(image), seed, options), 1u);
  });
}

TEST(Qcow2FaultTest, EveryFailureWithLazyRefcountsIsReportedAndTheImageStaysRight) {
  for_each_seed(3, [](uint64_t seed) {
    sim::DeviceFaultOptions options;
    options.workload.operations = 60;
    options.workload.errors_allowed = true;
    options.step = 5;
    const TestImage image = lazy_image(drawn_image(seed));
    EXPECT_GT(run_device_fault_sweep(test_format(image), seed, options), 1u);
  });
}

// New refcount blocks and a larger refcount table come in the middle of allocations; each asks the
// storage for its space.
TEST(Qcow2FaultTest, AFailureWhileTheRefcountTableGrowsIsReported) {
  TestImage image;
  image.cluster_bits = 9;
  image.refcount_order = 6;
  image.leaks_allowed = true;
  sim::DeviceFaultOptions options;
  options.size = ByteCount(6 << 20);
  options.workload.operations = 150;
  options.workload.length_max = 400 * 1024;
  options.workload.writes = 80;
  options.workload.zeroes = options.workload.discards = 0;
  options.only = sim::SimOperation::kAllocate;
  EXPECT_GT(run_device_fault_sweep(test_format(image), sim::seed_or(3), options), 100u);
}

TEST(Qcow2FaultTest, EveryFailureAmongCompressedWritesIsReportedAndTheImageStaysRight) {
  for_each_seed(3, [](uint64_t seed) {
    TestImage image = drawn_compressed_image(seed);
    image.leaks_allowed = true;
    sim::DeviceFaultOptions options;
    options.workload.operations = 60;
    options.workload.compressed = 40;
    options.workload.writes = 15;
    options.step = 5;
    EXPECT_GT(run_device_fault_sweep(test_format(image), seed, options), 1u);
  });
}

TEST(Qcow2FaultTest, EveryFailureAmongSubclustersIsReportedAndTheImageStaysRight) {
  for_each_seed(4, [](uint64_t seed) {
    TestImage image = drawn_extended_image(seed);
    image.leaks_allowed = true;
    if (seed % 2 == 0) image.backing_bytes = 600 << 10;
    sim::DeviceFaultOptions options;
    options.workload.operations = 60;
    options.workload.errors_allowed = true;
    options.step = 5;
    EXPECT_GT(run_device_fault_sweep(test_format(image), seed, options), 1u);
  });
}

TEST(Qcow2FaultTest, ADiskThatIsGoneIsReported) {
  TestImage image;
  image.leaks_allowed = true;
  sim::DeviceFaultOptions options;
  options.workload.operations = 60;
  options.workload.errors_allowed = true;
  options.fail_all_after = true;
  options.step = 11;
  EXPECT_GT(run_device_fault_sweep(test_format(image), sim::seed_or(1), options), 1u);
}

}  // namespace
}  // namespace ringdisk::qcow2
