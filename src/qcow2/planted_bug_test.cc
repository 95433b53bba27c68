// SPDX-License-Identifier: Apache-2.0
// The sweeps find mistakes: each planted bug makes the sweep that is there for it fail, and without
// it the same sweep passes.
#include <gtest/gtest.h>

#include "qcow2/image_fixture_test.h"
#include "sim/crash_sweep.h"
#include "sim/expected_failures.h"
#include "sim/fault_sweep.h"

namespace ringdisk::qcow2 {
namespace {

using Sweep = void (*)(const TestImage& image, uint64_t seed);

// One of a few seeds is enough.
bool is_found(PlantedBug bug, TestImage image, Sweep sweep) {
  constexpr uint64_t kSeeds = 6;
  image.planted_bug = bug;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    if (sim::failures_of([&] { sweep(image, seed); }) != 0) return true;
  }
  return false;
}

void expect_found(PlantedBug bug, const TestImage& image, Sweep sweep) {
  EXPECT_TRUE(is_found(bug, image, sweep));
  EXPECT_FALSE(is_found(PlantedBug::kNone, image, sweep));
}

TestImage leaking_image(uint32_t cluster_bits, uint32_t refcount_order) {
  TestImage image;
  image.cluster_bits = cluster_bits;
  image.refcount_order = refcount_order;
  image.leaks_allowed = true;
  return image;
}

void sweep_crashes(const TestImage& image, uint64_t seed) {
  sim::DeviceCrashOptions options;
  options.workload.operations = 100;
  options.workload.length_max = 48 * 1024;
  options.workload.flushes = 15;
  options.workload.discards = 20;
  options.sweep.points = 25;
  run_device_crash_sweep(test_format(image), seed, options);
}

// What is discarded is soon used again.
void sweep_crashes_of_reuse(const TestImage& image, uint64_t seed) {
  sim::DeviceCrashOptions options;
  options.size = ByteCount(1 << 20);
  options.workload.operations = 150;
  options.workload.length_max = 32 * 1024;
  options.workload.writes = 45;
  options.workload.flushes = 10;
  options.workload.discards = 35;
  options.sweep.points = 60;
  run_device_crash_sweep(test_format(image), seed, options);
}

// The refcount table starts with room for 2 MiB of file.
void sweep_crashes_of_growth(const TestImage& image, uint64_t seed) {
  sim::DeviceCrashOptions options;
  options.size = ByteCount(4 << 20);
  options.workload.operations = 100;
  options.workload.writes = 70;
  options.workload.flushes = 15;
  options.sweep.points = 60;
  run_device_crash_sweep(test_format(image), seed, options);
}

void sweep_faults(const TestImage& image, uint64_t seed) {
  sim::DeviceFaultOptions options;
  options.workload.operations = 60;
  options.only = sim::SimOperation::kWrite;
  options.step = 2;
  run_device_fault_sweep(test_format(image), seed, options);
}

TEST(PlantedBugTest, EntriesWrittenBeforeTheirClustersAreFound) {
  expect_found(PlantedBug::kEntriesBeforeTheirClusters, leaking_image(12, 4), &sweep_crashes);
}

TEST(PlantedBugTest, AHeaderWrittenBeforeTheRefcountTableIsFound) {
  expect_found(PlantedBug::kHeaderBeforeRefcountTable, leaking_image(9, 6),
               &sweep_crashes_of_growth);
}

TEST(PlantedBugTest, AClusterFreedTooEarlyIsFound) {
  expect_found(PlantedBug::kFreedBeforeRemovalIsDurable, leaking_image(12, 4),
               &sweep_crashes_of_reuse);
}

TEST(PlantedBugTest, AnErrorThatIsLostIsFound) {
  expect_found(PlantedBug::kLostWriteError, leaking_image(12, 4), &sweep_faults);
}

TEST(PlantedBugTest, ADirtyBitThatIsMissingIsFound) {
  TestImage image = leaking_image(12, 4);
  image.lazy_refcounts = true;
  expect_found(PlantedBug::kLateDirtyBit, image, &sweep_crashes);
}

}  // namespace
}  // namespace ringdisk::qcow2
