// SPDX-License-Identifier: Apache-2.0
// Images with compressed clusters: read in any part, written over, given up, damaged; under the
// model, the crash sweep and the fault sweep.
#include <gtest/gtest.h>

#include "qcow2/compressed_image_test.h"
#include "qcow2/image_stage_test.h"
#include "sim/crash_sweep.h"
#include "sim/device_contract.h"
#include "sim/fault_sweep.h"
#include "sim/model_run.h"

namespace ringdisk::qcow2 {
namespace {

constexpr ByteCount kSize(1 << 20);

TestImage drawn_image(uint64_t seed) {
  Random random(seed);
  TestImage image;
  image.version = random.chance(25) ? 2 : 3;
  image.cluster_bits = static_cast<uint32_t>(12 + random.below(5));
  image.refcount_order = static_cast<uint32_t>(random.below(5));
  if (image.version == 3 && random.chance(50)) image.compression = Compression::kZstd;
  if (random.chance(30)) image.backing_bytes = 600 << 10;
  return image;
}

TEST(CompressedModelTest, HoldsWhatWasWrittenOverCompressedClusters) {
  sim::for_each_seed(40, [](uint64_t seed) {
    sim::ModelTestOptions options;
    options.size = kSize;
    run_model_test(compressed_format(drawn_image(seed)), seed, options);
  });
}

TEST(CompressedCrashTest, ACrashAnywhereLeaksAtWorst) {
  sim::for_each_seed(6, [](uint64_t seed) {
    TestImage image = drawn_image(seed);
    image.leaks_allowed = true;
    sim::DeviceCrashOptions options;
    options.workload.operations = 100;
    options.workload.length_max = 48 * 1024;
    options.workload.flushes = 15;
    options.sweep.shards = 1 + seed % 3;
    options.sweep.points = 25;
    EXPECT_GT(run_device_crash_sweep(compressed_format(image), seed, options), 0u);
  });
}

TEST(CompressedFaultTest, EveryFailureIsReportedAndTheImageStaysRight) {
  sim::for_each_seed(2, [](uint64_t seed) {
    TestImage image = drawn_image(seed);
    image.leaks_allowed = true;
    sim::DeviceFaultOptions options;
    options.workload.operations = 60;
    options.step = 5;
    EXPECT_GT(run_device_fault_sweep(compressed_format(image), seed, options), 1u);
  });
}

// --- one image, looked at closely

// Clusters of 4 KiB; layout: header, refcount table, refcount block, L1 table, L2 table, streams.
constexpr uint64_t kCluster = 4096;
constexpr uint64_t kRefcountBlockAt = 2 * kCluster;
constexpr uint64_t kTableAt = 4 * kCluster;

class CompressedTest : public ::testing::TestWithParam<Compression> {
 protected:
  CompressedTest() : stage_(image(), kSize, sim::SimDiskOptions::file()) {
    CompressedImage layout(image(), kSize);
    stage_.disk.poke(0, layout.encode());
  }
  static TestImage image() {
    TestImage image;
    image.compression = GetParam();
    return image;
  }
  L2Entry entry(uint64_t guest) { return L2Entry(stage_.get64(kTableAt + guest * kEntryBytes), 0); }
  uint64_t refcount(ClusterIndex host) {
    std::byte bytes[2];
    stage_.disk.peek(kRefcountBlockAt + host.value() * 2, bytes);
    return load_be16(bytes);
  }

  ImageStage stage_;
};
INSTANTIATE_TEST_SUITE_P(BothMethods, CompressedTest,
                         ::testing::Values(Compression::kDeflate, Compression::kZstd));

Task<void> expect_packed(DeviceQueue& queue, uint64_t guest) {
  std::vector<std::byte> bytes(kCluster);
  co_await queue.read(GuestOffset(guest * kCluster), MutableBuffers(MutableBytes(bytes)));
  EXPECT_EQ(bytes, packed_content(guest, kCluster)) << "guest cluster " << guest;
}

// Guest clusters 0 and 1 are packed, 2 reads as zeros, 3 and 4 are packed.
Task<void> read_every_part(DeviceQueue& queue) {
  std::vector<std::byte> whole;
  for (uint64_t guest = 0; guest < 5; ++guest) {
    std::vector<std::byte> cluster(kCluster);
    if (is_packed(guest)) cluster = packed_content(guest, kCluster);
    whole.insert(whole.end(), cluster.begin(), cluster.end());
  }
  Random random(1);
  for (int i = 0; i < 300; ++i) {
    const size_t begin = random.below(whole.size());
    const size_t length = 1 + random.below(whole.size() - begin);
    std::vector<std::byte> bytes(length);
    co_await queue.read(GuestOffset(begin), MutableBuffers(MutableBytes(bytes)));
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), whole.data() + begin))
        << begin << ", " << length << " bytes";
  }
}

TEST_P(CompressedTest, EveryPartOfItIsRead) {
  EXPECT_EQ(stage_.text_of(stage_.use(&read_every_part)), "");
}

Task<void> write_into_0(DeviceQueue& queue) {
  co_await write_stamped(queue, 512, 100, 9);
  co_await expect_stamped(queue, 512, 100, 9);
  co_await expect_packed(queue, 1);
  co_await queue.flush();
}
Task<void> give_up_1(DeviceQueue& queue) {
  co_await queue.discard(GuestRange(GuestOffset(kCluster), ByteCount(kCluster)));
  co_await expect_stamped(queue, kCluster, kCluster, 0);
  co_await expect_stamped(queue, 512, 100, 9);
  co_await expect_packed(queue, 3);
}

// The streams of guest clusters 0 and 1 begin in one host cluster.
TEST_P(CompressedTest, ItsHostClusterIsFreeWhenTheLastStreamInItIsGone) {
  const ClusterIndex shared = host_clusters_of(entry(0), Geometry(12, 4)).first;
  EXPECT_EQ(host_clusters_of(entry(1), Geometry(12, 4)).first, shared);
  EXPECT_EQ(refcount(shared), 2u);
  EXPECT_EQ(stage_.text_of(stage_.use(&write_into_0)), "");
  EXPECT_EQ(refcount(shared), 1u);
  EXPECT_FALSE(entry(0).is_compressed());
  EXPECT_TRUE(entry(1).is_compressed());
  stage_.check();
  EXPECT_EQ(stage_.text_of(stage_.use(&give_up_1)), "");
  EXPECT_EQ(refcount(shared), 0u);
  stage_.check();
}

void expect_damage(const Result<void>& result) {
  EXPECT_FALSE(result.ok());
  if (result.ok()) return;
  EXPECT_EQ(result.error().kind, ErrorKind::kCorrupt);
  EXPECT_EQ(result.error().errno_value, EIO);
}

// What needs the damaged stream fails, its neighbours are read, and a write of the whole cluster
// puts something better in its place.
Task<void> use_around_damage(DeviceQueue& queue) {
  std::vector<std::byte> bytes(10);
  const auto inside = GuestOffset(kCluster + 5);
  Result<void> read = co_await queue.read(inside, MutableBuffers(MutableBytes(bytes))).result();
  expect_damage(read);
  Result<void> written = co_await write_stamped(queue, kCluster + 512, 100, 9).result();
  expect_damage(written);
  co_await expect_packed(queue, 0);
  co_await expect_packed(queue, 3);
  co_await write_stamped(queue, kCluster, kCluster, 5);
  co_await expect_stamped(queue, kCluster, kCluster, 5);
}
Task<void> read_1(DeviceQueue& queue) { co_await expect_packed(queue, 1); }

TEST_P(CompressedTest, ADamagedStreamIsAnErrorThatNamesIt) {
  const HostOffset at = entry(1).compressed_place(Geometry(12, 4)).offset;
  const std::vector<std::byte> garbage(16, std::byte{0xff});
  stage_.disk.poke(at.value(), garbage);
  EXPECT_EQ(stage_.text_of(stage_.use(&read_1, true)),
            "disk.qcow2: the compressed cluster of L2 entry 1 of L1 entry 0 (guest offset 4096), "
            "at byte " +
                std::to_string(at.value()) + ", cannot be decompressed");
  EXPECT_EQ(stage_.text_of(stage_.use(&use_around_damage)), "");
  EXPECT_EQ(stage_.get64(kIncompatibleFeaturesAt) & kIncompatibleCorrupt, 0u);
  stage_.check();
}

}  // namespace
}  // namespace ringdisk::qcow2
