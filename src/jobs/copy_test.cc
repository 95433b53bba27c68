// SPDX-License-Identifier: Apache-2.0
// CopyJob on simulated shards: what arrives, what stays a hole, and what a failure or a
// cancellation leaves. Every 512-byte block has its own content.
#include "jobs/copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/endian.h"
#include "nodes/fault.h"
#include "nodes/mem.h"
#include "nodes/raw.h"
#include "sim/seeds.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using limits::kKiB;
using limits::kMiB;

constexpr size_t kBlock = 512;

// A raw disk in memory, behind a fault plan.
struct Disk {
  std::shared_ptr<MemContent> content;
  std::shared_ptr<FaultPlan> plan = std::make_shared<FaultPlan>();
  std::unique_ptr<DeviceNode> device;

  Disk(Diagnostics& diagnostics, std::string name, uint64_t size)
      : content(std::make_shared<MemContent>(ByteCount(size))) {
    const uint32_t id = diagnostics.add_node(name);
    auto memory = std::make_unique<MemNode>(name, id, content);
    auto below = std::make_unique<SharedStorage>(std::move(memory));
    auto faulty = std::make_unique<FaultNode>(std::move(below), plan);
    auto storage = std::make_unique<SharedStorage>(std::move(faulty));
    auto format = std::make_unique<RawNode>(std::move(storage), ByteCount(0), ByteCount(size));
    device = std::make_unique<DeviceNode>(std::move(name), id, std::move(format), nullptr);
  }

  // Blocks [first, first + count), each of its own content.
  void fill(uint64_t first, uint64_t count, uint64_t seed) {
    for (uint64_t block = first; block < first + count; ++block) {
      std::byte bytes[kBlock];
      Random random(sim::mix_seed(seed, block));
      for (size_t at = 0; at < kBlock; at += 8) store_le64(bytes + at, random.next() | 1);
      content->memory().write(HostOffset(block * kBlock), bytes);
    }
  }
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> all(content->size().value());
    content->memory().read(HostOffset(0), all);
    return all;
  }
  uint64_t allocated() const { return content->memory().allocated_bytes(); }
};

void expect_same(const std::vector<std::byte>& wanted, const std::vector<std::byte>& found) {
  ASSERT_LE(wanted.size(), found.size());
  for (size_t at = 0; at < wanted.size(); ++at) {
    ASSERT_EQ(wanted[at], found[at]) << "byte " << at << ", block " << at / kBlock;
  }
}

CopyOptions small_pieces() {
  CopyOptions options;
  options.piece_bytes = 64 * kKiB;
  options.region_bytes = 256 * kKiB;
  return options;
}

Result<void> copy(sim::SimWorld& world, std::vector<DeviceNode*> sources, Disk& target,
                  CopyOptions options) {
  CopyJob job(world.world(), std::move(sources), *target.device, options);
  CancelSource never;
  auto body = [&](Shard&) { return job.run(never.token()); };
  Result<void> done = world.run(body);
  if (done.ok()) {
    EXPECT_EQ(job.done_bytes(), job.total_bytes());
  }
  return done;
}

// Runs of data and holes of drawn lengths.
void scatter(Disk& disk, Random& random, uint64_t seed) {
  const uint64_t blocks = disk.content->size().value() / kBlock;
  for (uint64_t at = random.below(300); at < blocks; at += random.below(600)) {
    const uint64_t count = std::min(1 + random.below(300), blocks - at);
    disk.fill(at, count, seed);
    at += count;
  }
}

TEST(CopyTest, EveryBlockArrivesInAnyOrderOfShardsOverWhatWasThere) {
  sim::for_each_seed(60, [](uint64_t seed) {
    sim::SimWorld world(seed, 1 + static_cast<uint32_t>(seed % 3));
    Random random(world.draw_seed());
    const uint64_t size = 2 * kMiB + kBlock * random.below(3000);
    Disk source(world.diagnostics(), "source", size);
    Disk target(world.diagnostics(), "target", size);
    scatter(source, random, seed);
    target.fill(0, size / kBlock, seed + 1000);
    CopyOptions options = small_pieces();
    options.sparse_bytes = random.chance(20) ? 0 : kBlock << random.below(6);
    options.requests_in_flight = static_cast<uint32_t>(random.below(12));
    ASSERT_TRUE(copy(world, {source.device.get()}, target, options).ok());
    expect_same(source.bytes(), target.bytes());
  });
}

TEST(CopyTest, ANewTargetStaysAsSparseAsTheSource) {
  sim::SimWorld world(1, 2);
  Disk source(world.diagnostics(), "source", 64 * kMiB);
  Disk target(world.diagnostics(), "target", 64 * kMiB);
  source.fill(0, 1, 1);
  source.fill(40 * kMiB / kBlock, 3, 1);
  CopyOptions options;
  options.target_reads_zero = true;
  ASSERT_TRUE(copy(world, {source.device.get()}, target, options).ok());
  expect_same(source.bytes(), target.bytes());
  EXPECT_EQ(target.allocated(), source.allocated());
}

TEST(CopyTest, ZerosThatWereWrittenAreFoundAndLeftOut) {
  sim::SimWorld world(1, 2);
  Disk source(world.diagnostics(), "source", 8 * kMiB);
  Disk target(world.diagnostics(), "target", 8 * kMiB);
  const std::vector<std::byte> zeros(8 * kMiB);
  source.content->memory().write(HostOffset(0), zeros);
  CopyOptions options;
  options.target_reads_zero = true;
  ASSERT_TRUE(copy(world, {source.device.get()}, target, options).ok());
  EXPECT_EQ(target.allocated(), 0u);
}

TEST(CopyTest, WithoutLookingForZerosEverythingIsWritten) {
  sim::SimWorld world(1, 2);
  Disk source(world.diagnostics(), "source", 4 * kMiB);
  Disk target(world.diagnostics(), "target", 4 * kMiB);
  CopyOptions options;
  options.sparse_bytes = 0;
  options.target_reads_zero = true;
  ASSERT_TRUE(copy(world, {source.device.get()}, target, options).ok());
  EXPECT_EQ(target.allocated(), 4 * kMiB);
}

TEST(CopyTest, SourcesLieEndToEnd) {
  sim::for_each_seed(20, [](uint64_t seed) {
    sim::SimWorld world(seed, 2);
    Disk first(world.diagnostics(), "first", 700 * kBlock);
    Disk second(world.diagnostics(), "second", 1801 * kBlock);
    Disk target(world.diagnostics(), "target", 2501 * kBlock);
    first.fill(0, 700, seed);
    second.fill(3, 1500, seed + 1);
    std::vector<DeviceNode*> sources = {first.device.get(), second.device.get()};
    ASSERT_TRUE(copy(world, sources, target, small_pieces()).ok());
    std::vector<std::byte> wanted = first.bytes();
    const std::vector<std::byte> rest = second.bytes();
    wanted.insert(wanted.end(), rest.begin(), rest.end());
    expect_same(wanted, target.bytes());
  });
}

TEST(CopyTest, AnEmptyDiskOfManyTerabytesTakesFewSteps) {
  sim::SimWorld world(1, 2);
  const uint64_t size = uint64_t{8} << 40;
  Disk source(world.diagnostics(), "source", size);
  Disk target(world.diagnostics(), "target", size);
  CopyOptions options;
  options.target_reads_zero = true;
  ASSERT_TRUE(copy(world, {source.device.get()}, target, options).ok());
  EXPECT_LT(world.steps(), 1000u);
}

// The n-th request to source or target fails, n = 0, 1, … until the copy is untouched.
void sweep(bool fail_source, uint64_t seed) {
  for (uint64_t n = 0;; ++n) {
    SCOPED_TRACE(::testing::Message() << "operation " << n);
    ASSERT_LT(n, 1000u);
    sim::SimWorld world(seed, 2);
    Disk source(world.diagnostics(), "source", kMiB);
    Disk target(world.diagnostics(), "target", kMiB);
    source.fill(100, 900, seed);
    FaultPlan& plan = fail_source ? *source.plan : *target.plan;
    plan.fail_nth(n, ENOSPC);
    Result<void> done = copy(world, {source.device.get()}, target, small_pieces());
    if (plan.failures() == 0) {
      ASSERT_TRUE(done.ok());
      expect_same(source.bytes(), target.bytes());
      EXPECT_GT(n, 5u) << "the sweep reached nothing";
      return;
    }
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().errno_value, ENOSPC);
    EXPECT_NE(done.error().node, 0u) << "an error says where it happened";
  }
}

TEST(CopyTest, EveryFailedReadFailsTheJobWithItsErrno) {
  sim::for_each_seed(5, [](uint64_t seed) { sweep(true, seed); });
}

TEST(CopyTest, EveryFailedWriteOrFlushFailsTheJobWithItsErrno) {
  sim::for_each_seed(5, [](uint64_t seed) { sweep(false, seed); });
}

// Fails whatever touches the blocks [first, first + count).
FaultRule unreadable(uint64_t first, uint64_t count) {
  FaultRule rule;
  rule.operations = StorageOperation::kRead;
  rule.range = HostRange(HostOffset(first * kBlock), ByteCount(count * kBlock));
  rule.count = FaultRule::kForEver;
  rule.errno_value = EIO;
  return rule;
}

TEST(CopyTest, SalvageLosesNoMoreThanTheSectorsThatCannotBeRead) {
  sim::for_each_seed(20, [](uint64_t seed) {
    sim::SimWorld world(seed, 1 + static_cast<uint32_t>(seed % 3));
    const uint64_t blocks = 4096;
    Disk source(world.diagnostics(), "source", blocks * kBlock);
    Disk target(world.diagnostics(), "target", blocks * kBlock);
    source.fill(0, blocks, seed);
    std::vector<std::byte> wanted = source.bytes();
    Random random(world.draw_seed());
    uint64_t blanked_blocks = 0;
    for (uint64_t first = 64 * (seed % 2); first < blocks; first += 600) {
      const uint64_t count = std::min(1 + random.below(200), blocks - first);
      source.plan->add(unreadable(first, count));
      std::fill_n(wanted.begin() + static_cast<ptrdiff_t>(first * kBlock), count * kBlock,
                  std::byte{0});
      blanked_blocks += count;
    }
    CopyOptions options = small_pieces();
    options.salvage = true;
    CopyJob job(world.world(), {source.device.get()}, *target.device, options);
    CancelSource never;
    auto body = [&](Shard&) { return job.run(never.token()); };
    ASSERT_TRUE(world.run(body).ok());
    expect_same(wanted, target.bytes());
    uint64_t zeros = 0;
    for (const UnreadableRange& one : job.unreadable().first()) {
      EXPECT_EQ(one.error.errno_value, EIO);
      EXPECT_EQ(wanted[one.range.offset.value()], std::byte{0});
      zeros += one.range.length.value();
    }
    EXPECT_EQ(zeros, job.unreadable().bytes());
    EXPECT_EQ(zeros, blanked_blocks * kBlock);
  });
}

TEST(CopyTest, SalvageStillTellsOfWritesThatFail) {
  sim::SimWorld world(1, 2);
  Disk source(world.diagnostics(), "source", kMiB);
  Disk target(world.diagnostics(), "target", kMiB);
  source.fill(0, kMiB / kBlock, 1);
  source.plan->add(unreadable(7, 1));
  target.plan->fail_nth(3, ENOSPC);
  CopyOptions options = small_pieces();
  options.salvage = true;
  Result<void> done = copy(world, {source.device.get()}, target, options);
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().errno_value, ENOSPC);
}

TEST(CopyTest, ARateIsKept) {
  sim::SimWorld world(1, 3);
  Disk source(world.diagnostics(), "source", 4 * kMiB);
  Disk target(world.diagnostics(), "target", 4 * kMiB);
  source.fill(0, 2 * kMiB / kBlock, 1);  // the rest is a hole and costs nothing
  CopyOptions options = small_pieces();
  options.bytes_per_second = 100 * kKiB;
  const Instant began = world.world().clock.now();
  ASSERT_TRUE(copy(world, {source.device.get()}, target, options).ok());
  expect_same(source.bytes(), target.bytes());
  const double seconds = std::chrono::duration<double>(world.world().clock.now() - began).count();
  EXPECT_GT(seconds, 2 * 1024.0 / 100 - 1);  // the last piece is not waited for
  EXPECT_LT(seconds, 2 * 1024.0 / 100 + 1);
}

TEST(CopyTest, ACancelledJobEndsAndSaysSo) {
  sim::SimWorld world(1, 2);
  Disk source(world.diagnostics(), "source", 16 * kMiB);
  Disk target(world.diagnostics(), "target", 16 * kMiB);
  source.fill(0, 16 * kMiB / kBlock, 1);
  CopyJob job(world.world(), {source.device.get()}, *target.device, small_pieces());
  CancelSource stop;
  stop.cancel();
  auto body = [&](Shard&) { return job.run(stop.token()); };
  Result<void> done = world.run(body);
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().kind, ErrorKind::kCancelled);
  EXPECT_EQ(target.allocated(), 0u);
}

}  // namespace
}  // namespace ringdisk
