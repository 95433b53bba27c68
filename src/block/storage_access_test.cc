// SPDX-License-Identifier: Apache-2.0
// The face in front of a storage: any offset and length over any block size, from several shards at
// once, nothing undone and nothing lost. On the simulated medium, which CHECKs what a driver is
// promised.
#include "block/storage_access.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "async/scope.h"
#include "base/limits.h"
#include "base/random.h"
#include "nodes/storage_filter.h"
#include "sim/sim_storage.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using sim::SimDisk;
using sim::SimDiskOptions;
using sim::SimFaults;
using sim::SimOperation;
using sim::SimStorageNode;
using sim::SimWorld;

// A disk with one storage over it, closed when it goes.
struct Stage {
  Stage(SimWorld& sim_world, SimDiskOptions options, SimFaults* faults = nullptr)
      : world(sim_world),
        disk(options, sim_world.draw_seed(), nullptr, faults),
        storage(std::make_unique<SimStorageNode>(disk, "disk", 1)) {}
  ~Stage() {
    disk.set_faults(nullptr);
    auto body = [this](Shard&) { return storage.node->close(); };
    EXPECT_TRUE(world.run(body).ok());
  }
  SimWorld& world;
  SimDisk disk;
  SharedStorage storage;
};

SimDiskOptions file_of(uint64_t size, uint32_t block_size) {
  SimDiskOptions options;
  options.size = ByteCount(size);
  options.block_size = block_size;
  options.memory_alignment = block_size;
  return options;
}

std::vector<std::byte> noise(uint64_t seed, size_t length) {
  Random random(seed);
  std::vector<std::byte> bytes(length);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
  return bytes;
}

// --- many writers of neighbouring bytes ----------------------------------------------------------

constexpr uint64_t kDiskBytes = 48 * 1024;
constexpr size_t kOwnersPerShard = 4;

// A stretch of bytes that one coroutine alone writes; its neighbours in the same blocks belong to
// others.
struct Property {
  uint64_t offset;
  std::vector<std::byte> content;
};

// The disk cut into stretches of odd lengths, dealt out to `owners`.
std::vector<std::vector<Property>> deal_out(Random& random, size_t owners) {
  std::vector<std::vector<Property>> dealt(owners);
  for (uint64_t at = 0; at < kDiskBytes;) {
    const uint64_t longest = random.chance(20) ? 9000 : 300;
    const uint64_t length = std::min(kDiskBytes - at, 1 + random.below(longest));
    dealt[random.below(owners)].push_back({at, std::vector<std::byte>(length)});
    at += length;
  }
  return dealt;
}

Task<void> expect_content(StorageAccess& access, const Property& property) {
  std::vector<std::byte> read(property.content.size(), std::byte{0xee});
  co_await access.read(HostOffset(property.offset), MutableBuffers(MutableBytes(read)));
  EXPECT_EQ(read, property.content) << "at " << property.offset;
}

// One random change of a part of a property.
Task<void> change_one(StorageAccess& access, Property& property, Random& random) {
  const size_t begin = random.below(property.content.size());
  const size_t length = 1 + random.below(property.content.size() - begin);
  MutableBytes part = MutableBytes(property.content).subspan(begin, length);
  const HostOffset at(property.offset + begin);
  if (random.chance(30)) {
    ZeroOptions options;
    options.may_unmap = random.chance(50);
    options.fua = random.chance(20);
    fill_zero(part);
    co_await access.write_zeroes(HostRange(at, ByteCount(length)), options);
    co_return;
  }
  WriteOptions options;
  options.fua = random.chance(20);
  copy_bytes(noise(random.next(), length), part);
  const size_t cut = random.below(length + 1);
  const iovec parts[] = {{part.data(), cut}, {part.data() + cut, length - cut}};
  co_await access.write(at, ConstBuffers(parts, 2), options);
}

Task<void> own(StorageAccess& access, std::vector<Property>& properties, uint64_t seed) {
  Random random(seed);
  if (properties.empty()) co_return;
  for (int i = 0; i < 40; ++i) {
    Property& property = properties[random.below(properties.size())];
    if (random.chance(30)) {
      co_await expect_content(access, property);
    } else {
      co_await change_one(access, property, random);
    }
  }
  for (const Property& property : properties) co_await expect_content(access, property);
}

Task<void> own_on_shard(Shard& shard, Stage& stage, std::vector<std::vector<Property>>& dealt,
                        uint64_t seed) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(stage.storage, shard);
  auto one = [&](size_t i) {
    const size_t owner = shard.index() * kOwnersPerShard + i;
    return own(*access, dealt[owner], sim::mix_seed(seed, owner));
  };
  co_await when_all(kOwnersPerShard, one);
}

void expect_neighbours_keep_their_bytes(uint64_t seed, SimDiskOptions options) {
  SimWorld world(seed, 3);
  Random random(seed);
  Stage stage(world, options);
  stage.disk.poke(0, std::vector<std::byte>(kDiskBytes));
  auto dealt = deal_out(random, 3 * kOwnersPerShard);
  auto body = [&](Shard& shard) { return own_on_shard(shard, stage, dealt, seed); };
  ASSERT_TRUE(world.run_on_all(body).ok());
  for (const auto& properties : dealt) {
    for (const Property& property : properties) {
      std::vector<std::byte> there(property.content.size());
      stage.disk.peek(property.offset, there);
      EXPECT_EQ(there, property.content);
    }
  }
}

class PaddingTest : public ::testing::TestWithParam<uint32_t> {};

TEST_P(PaddingTest, WritersOfNeighbouringBytesOnSeveralShardsNeverUndoOneAnother) {
  sim::for_each_seed(40, [](uint64_t seed) {
    expect_neighbours_keep_their_bytes(seed, file_of(kDiskBytes, GetParam()));
  });
}
TEST_P(PaddingTest, OnADeviceThatDoesNotGrowToo) {
  sim::for_each_seed(20, [](uint64_t seed) {
    SimDiskOptions options = SimDiskOptions::block_device(ByteCount(kDiskBytes), GetParam());
    expect_neighbours_keep_their_bytes(seed, options);
  });
}
INSTANTIATE_TEST_SUITE_P(BlockSizes, PaddingTest, ::testing::Values(1, 512, 4096),
                         ::testing::PrintToStringParamName());

// --- one request ---------------------------------------------------------------------------------

// Runs body(access), a Task<void>, over a disk.
template <class Body>
Result<void> with_access(SimWorld& world, Stage& stage, Body body) {
  auto root = [&](Shard& shard) -> Task<void> {
    std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(stage.storage, shard);
    co_await body(*access);
  };
  return world.run(root);
}

TEST(StorageAccessTest, BytesBeyondAnOddEndReadAsZeros) {
  for (uint32_t block : {1, 512, 4096}) {
    SimWorld world;
    Stage stage(world, file_of(0, block));
    stage.disk.poke(0, noise(1, 1000));
    auto body = [&](StorageAccess& access) -> Task<void> {
      std::vector<std::byte> wanted = noise(1, 1000);
      wanted.resize(6000);
      for (size_t offset : {0, 1, 999, 1000, 1001, 5000}) {
        std::vector<std::byte> read(700, std::byte{0xee});
        co_await access.read(HostOffset(offset), MutableBuffers(MutableBytes(read)));
        EXPECT_TRUE(
            std::equal(read.begin(), read.end(), wanted.begin() + static_cast<long>(offset)));
      }
    };
    ASSERT_TRUE(with_access(world, stage, body).ok());
  }
}

// As of a view that deciphers.
class NoZerosBeyond final : public StorageFilter {
 public:
  NoZerosBeyond(SimDisk& disk, Error error)
      : StorageFilter(
            std::make_unique<SharedStorage>(std::make_unique<SimStorageNode>(disk, "disk", 1))),
        limits_(child().limits()) {
    limits_.error_beyond_end = error;
  }
  const char* driver() const override { return "no zeros beyond"; }
  const StorageLimits& limits() const override { return limits_; }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override {
    return child().open_queue(shard);
  }

 private:
  StorageLimits limits_;
};

TEST(StorageAccessTest, WhatIsBeyondTheEndMayBeAnErrorInsteadOfZeros) {
  for (const uint32_t block_size : {1, 512}) {
    SimWorld world(block_size);
    SimDisk disk(file_of(1024, block_size), 3);
    SharedStorage storage(
        std::make_unique<NoZerosBeyond>(disk, Error::of(ErrorKind::kCorrupt, "read")));
    auto body = [&](Shard& shard) -> Task<void> {
      std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, shard);
      std::vector<std::byte> bytes(100);
      const MutableBuffers target{MutableBytes(bytes)};
      co_await access->read(HostOffset(924), target);
      for (const uint64_t at : {925, 1024, 5000}) {
        const Result<void> read = co_await access->read(HostOffset(at), target).result();
        EXPECT_EQ(read.ok() ? ErrorKind::kIo : read.error().kind, ErrorKind::kCorrupt);
        EXPECT_EQ(read.ok() ? 0 : read.error().offset, std::max<uint64_t>(at, 1024));
      }
      const HostRange beyond(HostOffset(2048), ByteCount(512));
      const StorageExtent extent = co_await access->find_extent(beyond);
      EXPECT_FALSE(extent.zero);
      access.reset();
      co_await storage.node->close();
    };
    const Result<void> done = world.run(body);
    EXPECT_TRUE(done.ok()) << world.diagnostics().describe(done.error());
  }
}

TEST(StorageAccessTest, AWriteBeyondTheEndMakesAFileLarger) {
  for (uint32_t block : {1, 512}) {
    SimWorld world;
    Stage stage(world, file_of(1000, block));
    auto body = [&](StorageAccess& access) -> Task<void> {
      std::vector<std::byte> source = noise(2, 100);
      co_await access.write(HostOffset(5000), ConstBuffers(Bytes(source)));
      EXPECT_GE(access.size().value(), 5100u);
      EXPECT_LT(access.size().value(), 5100u + block);
      std::vector<std::byte> read(5100);
      co_await access.read(HostOffset(0), MutableBuffers(MutableBytes(read)));
      EXPECT_TRUE(std::equal(source.begin(), source.end(), read.begin() + 5000));
      EXPECT_TRUE(std::all_of(read.begin(), read.begin() + 5000,
                              [](std::byte byte) { return byte == std::byte{0}; }));
    };
    ASSERT_TRUE(with_access(world, stage, body).ok());
  }
}

Error error_of(Result<void> result) {
  EXPECT_FALSE(result.ok());
  return result.ok() ? Error() : result.error();
}

// What every changing request says to a range that a storage cannot take.
void expect_refusals(SimDiskOptions options, HostRange range, ErrorKind kind) {
  SimWorld world;
  Stage stage(world, options);
  auto body = [&](StorageAccess& access) -> Task<void> {
    std::vector<std::byte> source(
        static_cast<size_t>(std::min<uint64_t>(range.length.value(), 4096)));
    Result<void> written =
        co_await access.write(range.offset, ConstBuffers(Bytes(source))).result();
    EXPECT_EQ(error_of(std::move(written)).kind, kind);
    Result<void> zeroed = co_await access.write_zeroes(range).result();
    EXPECT_EQ(error_of(std::move(zeroed)).kind, kind);
    Result<void> allocated = co_await access.allocate(range).result();
    Error error = error_of(std::move(allocated));
    EXPECT_EQ(error.kind, kind);
    EXPECT_EQ(error.node, 1u);
  };
  EXPECT_TRUE(with_access(world, stage, body).ok());
  EXPECT_EQ(stage.disk.written_bytes(), 0u);
}

TEST(StorageAccessTest, WhatDoesNotFitIsRefused) {
  const HostRange inside(HostOffset(100), ByteCount(4096));
  const HostRange over_the_end(HostOffset(8000), ByteCount(4096));
  const HostRange overflowing(HostOffset(kOffsetMax - 100), ByteCount(4096));
  SimDiskOptions device = SimDiskOptions::block_device(ByteCount(8192), 512);
  expect_refusals(device, over_the_end, ErrorKind::kNoSpace);
  expect_refusals(device, overflowing, ErrorKind::kInvalid);
  expect_refusals(file_of(8192, 1), overflowing, ErrorKind::kInvalid);
  device.read_only = true;
  expect_refusals(device, inside, ErrorKind::kDenied);
}

TEST(StorageAccessTest, HugeOffsetsAreErrorsOfEveryRequestAndNotBugs) {
  SimWorld world;
  Stage stage(world, file_of(8192, 512));
  auto body = [&](StorageAccess& access) -> Task<void> {
    std::vector<std::byte> memory(512);
    const HostOffset at(~uint64_t{0} - 10);
    Result<void> read = co_await access.read(at, MutableBuffers(MutableBytes(memory))).result();
    EXPECT_EQ(error_of(std::move(read)).kind, ErrorKind::kInvalid);
    Result<void> written = co_await access.write(at, ConstBuffers(Bytes(memory))).result();
    EXPECT_EQ(error_of(std::move(written)).kind, ErrorKind::kInvalid);
    const HostRange range(at, ByteCount(512));
    Result<void> discarded = co_await access.discard(range).result();
    EXPECT_EQ(error_of(std::move(discarded)).kind, ErrorKind::kInvalid);
    Result<void> zeroed = co_await access.write_zeroes(range).result();
    EXPECT_EQ(error_of(std::move(zeroed)).kind, ErrorKind::kInvalid);
    Result<StorageExtent> extent = co_await access.find_extent(range).result();
    EXPECT_EQ(extent.error().kind, ErrorKind::kInvalid);
    Result<void> resized = co_await access.resize(ByteCount(~uint64_t{0})).result();
    EXPECT_EQ(error_of(std::move(resized)).kind, ErrorKind::kInvalid);
  };
  EXPECT_TRUE(with_access(world, stage, body).ok());
}

TEST(StorageAccessTest, AllocatingCoversTheBlocksThatAreTouched) {
  SimWorld world;
  Stage stage(world, file_of(8192, 512));
  auto body = [&](StorageAccess& access) -> Task<void> {
    co_await access.allocate(HostRange(HostOffset(100), ByteCount(1000)));
    co_await access.allocate(HostRange(HostOffset(0), ByteCount(0)));
  };
  EXPECT_TRUE(with_access(world, stage, body).ok());
}

TEST(StorageAccessTest, DiscardsTouchWholeBlocksAlone) {
  sim::for_each_seed(30, [](uint64_t seed) {
    SimWorld world(seed);
    Stage stage(world, file_of(0, 512));
    const std::vector<std::byte> before = noise(seed, 8192);
    stage.disk.poke(0, before);
    Random random(seed);
    const uint64_t begin = random.below(8192), length = random.below(8192 - begin) + 1;
    auto body = [&](StorageAccess& access) -> Task<void> {
      co_await access.discard(HostRange(HostOffset(begin), ByteCount(length)));
    };
    ASSERT_TRUE(with_access(world, stage, body).ok());
    std::vector<std::byte> after(8192);
    stage.disk.peek(0, after);
    const HostRange whole = HostRange(HostOffset(begin), ByteCount(length)).narrowed(512);
    for (uint64_t at = 0; at < 8192; ++at) {
      if (after[at] == before[at]) continue;
      EXPECT_TRUE(whole.contains(HostOffset(at))) << at;
      EXPECT_EQ(after[at], std::byte{0});
    }
  });
}

TEST(StorageAccessTest, ExtentsOfOddRangesCoverThemAndAreTrue) {
  for (uint32_t block : {1, 512, 4096}) {
    SimWorld world;
    Stage stage(world, file_of(65536, block));
    stage.disk.poke(10000, noise(3, 5000));
    stage.disk.poke(40000, noise(4, 100));
    auto body = [&](StorageAccess& access) -> Task<void> {
      for (uint64_t begin : {0, 1, 9999, 12345}) {
        HostRange rest(HostOffset(begin), ByteCount(70000 - begin));
        while (!rest.empty()) {
          StorageExtent extent = co_await access.find_extent(rest);
          EXPECT_GT(extent.length.value(), 0u);
          EXPECT_LE(extent.length, rest.length);
          const uint64_t end =
              std::min<uint64_t>(65536, rest.offset.value() + extent.length.value());
          for (uint64_t at = rest.offset.value(); extent.zero && at < end; ++at) {
            std::byte byte{};
            stage.disk.peek(at, MutableBytes(&byte, 1));
            EXPECT_EQ(byte, std::byte{0}) << at;
          }
          rest = HostRange::between(rest.offset + extent.length, rest.end());
        }
      }
    };
    ASSERT_TRUE(with_access(world, stage, body).ok());
  }
}

TEST(StorageAccessTest, ALargeRequestIsSplit) {
  SimWorld world;
  SimDiskOptions options = file_of(80 * limits::kMiB, 512);
  options.delay_max = Duration::zero();
  Stage stage(world, options);
  stage.disk.poke(70 * limits::kMiB, noise(5, 512));
  std::vector<std::byte> read(limits::kRequestBytesMax + 10 * limits::kMiB, std::byte{0xee});
  auto body = [&](StorageAccess& access) -> Task<void> {
    co_await access.read(HostOffset(100), MutableBuffers(MutableBytes(read)));
    EXPECT_EQ(access.counters().reads, 1u);
    EXPECT_EQ(access.counters().bytes_read, read.size());
  };
  ASSERT_TRUE(with_access(world, stage, body).ok());
  const std::vector<std::byte> there = noise(5, 512);
  const auto at = static_cast<long>(70 * limits::kMiB - 100);
  EXPECT_TRUE(std::equal(there.begin(), there.end(), read.begin() + at));
  EXPECT_EQ(std::count(read.begin(), read.end(), std::byte{0xee}),
            std::count(there.begin(), there.end(), std::byte{0xee}));
}

// --- failures ------------------------------------------------------------------------------------

// A padded write reads, then writes: whichever fails, the error is seen and the blocks are free
// again.
TEST(StorageAccessTest, AFailedPaddedWriteLeavesTheBlocksFree) {
  for (uint64_t failing = 0; failing < 4; ++failing) {
    SimWorld world(failing + 1);
    SimFaults faults;
    Stage stage(world, file_of(8192, 4096), &faults);
    faults.fail_at = failing / 2;
    faults.only = failing % 2 == 0 ? SimOperation::kRead : SimOperation::kWrite;
    auto body = [&](StorageAccess& access) -> Task<void> {
      std::vector<std::byte> source = noise(6, 5000);
      int failures = 0;
      for (int i = 0; i < 3; ++i) {
        Result<void> done =
            co_await access.write(HostOffset(100), ConstBuffers(Bytes(source))).result();
        if (done.ok()) continue;
        ++failures;
        EXPECT_EQ(done.error().errno_value, EIO);
        EXPECT_EQ(done.error().node, 1u);
      }
      EXPECT_EQ(failures, 1);
    };
    ASSERT_TRUE(with_access(world, stage, body).ok());
  }
}

}  // namespace
}  // namespace ringdisk
