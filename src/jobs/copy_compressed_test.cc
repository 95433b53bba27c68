// SPDX-License-Identifier: Apache-2.0
// Compressed copies into qcow2 on simulated shards: whole clusters arrive whatever the extents of
// the sources are, zeros stay zeros, and a failure is told. Every 512-byte block has its own
// content.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "jobs/copy.h"
#include "qcow2/image_fixture_test.h"
#include "sim/seeds.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using limits::kKiB;
using qcow2::Compression;
using qcow2::TestImage;

constexpr size_t kBlock = 512;
constexpr uint32_t kTargetNode = 1;  // the first name that open_test_format gives out

// Runs of blocks with holes between them; `shrinks`: a block is its stamp again and again.
std::vector<std::byte> drawn_content(uint64_t blocks, uint64_t seed, bool shrinks) {
  std::vector<std::byte> bytes(blocks * kBlock);
  Random random(seed);
  for (uint64_t at = random.below(100); at < blocks; at += random.below(400)) {
    const uint64_t end = std::min(at + 1 + random.below(300), blocks);
    for (; at < end; ++at) {
      Random stamp(sim::mix_seed(seed, at));
      std::byte* block = &bytes[at * kBlock];
      for (size_t i = 0; i < kBlock; i += 8) store_le64(block + i, stamp.next() | 1);
      for (size_t i = 32; shrinks && i < kBlock; ++i) block[i] = block[i - 32];
    }
  }
  return bytes;
}

// One copy: raw sources, a qcow2 target, each on a simulated disk.
struct CompressedCopy {
  explicit CompressedCopy(uint64_t seed, uint32_t shards) : world(seed, shards) {
    world.diagnostics().add_node("disk.qcow2");
  }

  void add_source(std::vector<std::byte> content) {
    disks.push_back(std::make_unique<sim::SimDisk>(sim::SimDiskOptions::file(), 1));
    disks.back()->poke(0, content);
    wanted.insert(wanted.end(), content.begin(), content.end());
    sources.push_back(std::move(content));
  }
  // `size` of the target's disk.
  void make_target(TestImage test_image, uint64_t size) {
    image = test_image;
    target_size = ByteCount(size);
    target.poke(0, qcow2::encode_test_image(image, target_size));
  }
  Result<void> copy(CopyOptions options) {
    auto steps = [&](Shard&) { return copy_steps(options); };
    return world.run(steps);
  }
  // The target, read back, is the sources; its image is sound.
  CheckReport verify() {
    CheckReport report;
    auto steps = [&](Shard& shard) { return verify_steps(shard, report); };
    Result<void> done = world.run(steps);
    EXPECT_TRUE(done.ok()) << world.diagnostics().describe(done.error());
    EXPECT_EQ(report.corruptions, 0u);
    EXPECT_EQ(report.leaks, 0u);
    return report;
  }

  sim::SimWorld world;
  sim::SimFaults faults;
  sim::SimDisk target{sim::SimDiskOptions::file(), 1, nullptr, &faults};
  TestImage image;
  ByteCount target_size;
  std::vector<std::byte> wanted;

 private:
  std::unique_ptr<SharedStorage> target_storage() {
    return std::make_unique<SharedStorage>(
        std::make_unique<sim::SimStorageNode>(target, "disk.qcow2", kTargetNode));
  }
  Task<void> copy_steps(CopyOptions options) {
    std::vector<std::shared_ptr<DeviceNode>> nodes;
    std::vector<DeviceNode*> pointers;
    for (size_t i = 0; i < disks.size(); ++i) {
      auto storage = std::make_unique<SharedStorage>(
          std::make_unique<sim::SimStorageNode>(*disks[i], "source", 5));
      auto raw =
          std::make_unique<RawNode>(std::move(storage), ByteCount(0), ByteCount(sources[i].size()));
      nodes.push_back(std::make_shared<DeviceNode>("source", 5, std::move(raw), nullptr));
      pointers.push_back(nodes.back().get());
    }
    std::shared_ptr<DeviceNode> node =
        co_await qcow2::open_test_image(world.world(), image, nullptr, target_storage(), false);
    CopyJob job(world.world(), pointers, *node, options);
    CancelSource never;
    Result<void> copied = co_await job.run(never.token()).result();
    Result<void> closed = co_await node->close().result();
    for (const auto& source : nodes) co_await source->close();
    co_await std::move(copied);
    co_await std::move(closed);
  }
  Task<void> verify_steps(Shard& shard, CheckReport& report) {
    std::unique_ptr<SharedStorage> closed_image = target_storage();
    const std::function<void(CheckProgress)> no_progress;
    std::optional<CheckReport> made =
        co_await qcow2::check_image(world.world(), *closed_image, no_progress);
    co_await closed_image->node->close();
    report = *made;
    for (const std::string& message : report.messages) ADD_FAILURE() << message;
    std::shared_ptr<DeviceNode> node =
        co_await qcow2::open_test_image(world.world(), image, nullptr, target_storage(), true);
    std::unique_ptr<DeviceQueue> queue = co_await node->open_queue(shard);
    std::vector<std::byte> found(wanted.size());
    co_await queue->read(GuestOffset(0), MutableBuffers(MutableBytes(found)));
    queue.reset();
    co_await node->close();
    const auto differs = std::mismatch(found.begin(), found.end(), wanted.begin()).first;
    EXPECT_EQ(differs, found.end()) << "block " << (differs - found.begin()) / kBlock;
  }

  std::vector<std::unique_ptr<sim::SimDisk>> disks;
  std::vector<std::vector<std::byte>> sources;
};

CopyOptions compressing() {
  CopyOptions options;
  options.compress = true;
  options.piece_bytes = 64 * kKiB;
  options.region_bytes = 256 * kKiB;
  return options;
}

TEST(CopyCompressedTest, EveryBlockArrivesWhateverTheExtentsAre) {
  sim::for_each_seed(60, [](uint64_t seed) {
    CompressedCopy one(seed, 1 + static_cast<uint32_t>(seed % 3));
    Random random(one.world.draw_seed());
    for (uint64_t i = 0; i <= random.below(3); ++i) {
      one.add_source(drawn_content(1 + random.below(2500), seed + 100 * i, random.chance(75)));
    }
    TestImage image;
    image.cluster_bits = static_cast<uint32_t>(9 + random.below(9));
    image.compression = random.chance(50) ? Compression::kZstd : Compression::kDeflate;
    one.make_target(image, one.wanted.size() + (random.chance(30) ? 70 * kBlock : 0));
    CopyOptions options = compressing();
    options.sparse_bytes = random.chance(20) ? 0 : 4096;
    options.target_reads_zero = random.chance(50);
    options.requests_in_flight = static_cast<uint32_t>(random.below(12));
    ASSERT_TRUE(one.copy(options).ok());
    one.verify();
  });
}

TEST(CopyCompressedTest, ClustersAreCompressedAndZerosTakeNoPlace) {
  CompressedCopy one(sim::seed_or(1), 2);
  // One byte of each of nine clusters, in all places that a byte of a cluster may have.
  std::vector<std::byte> content(64 * 64 * kKiB);
  for (uint64_t i = 0; i < 8; ++i) content[(2 + i) * 64 * kKiB + i * 9362] = std::byte{1};
  content.back() = std::byte{1};
  one.add_source(std::move(content));
  TestImage image;
  image.cluster_bits = 16;
  one.make_target(image, one.wanted.size());
  CopyOptions options = compressing();
  options.target_reads_zero = true;
  ASSERT_TRUE(one.copy(options).ok());
  const CheckReport report = one.verify();
  EXPECT_EQ(report.compressed_clusters, 9u);
  EXPECT_EQ(report.allocated_clusters, 9u);
}

TEST(CopyCompressedTest, OverAFullTargetItReplacesAndGivesBack) {
  CompressedCopy one(sim::seed_or(1), 2);
  one.add_source(drawn_content(4000, 1, false));
  TestImage image;
  one.make_target(image, one.wanted.size());
  ASSERT_TRUE(one.copy(compressing()).ok());
  ASSERT_TRUE(one.copy(compressing()).ok());
  one.verify();
}

// The n-th request to the target fails, n = 0, 1, … until the copy is untouched.
TEST(CopyCompressedTest, EveryFailedRequestFailsTheJobWithItsErrno) {
  for (uint64_t n = 0;; ++n) {
    SCOPED_TRACE(::testing::Message() << "request " << n);
    ASSERT_LT(n, 1000u);
    CompressedCopy one(sim::seed_or(1), 2);
    one.add_source(drawn_content(1500, 1, true));
    one.make_target(TestImage(), one.wanted.size());
    one.faults.fail_at = n;
    one.faults.errno_value = ENOSPC;
    Result<void> done = one.copy(compressing());
    one.faults.fail_at.reset();
    if (one.faults.failed == 0) {
      ASSERT_TRUE(done.ok());
      one.verify();
      EXPECT_GT(n, 10u) << "the sweep reached nothing";
      return;
    }
    if (!done.ok()) {
      EXPECT_EQ(done.error().errno_value, ENOSPC);
    }
    if (done.ok()) one.verify();  // a discard that failed, or space that was only a promise
  }
}

}  // namespace
}  // namespace ringdisk
