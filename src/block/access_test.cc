// SPDX-License-Identifier: Apache-2.0
// Access joins a scattered format, its storage and a backing image: every byte is where the guest
// put it, whatever pieces a request falls into, whoever writes beside it in the same cluster, and
// whichever request of the storage fails.
#include "block/access.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "async/scope.h"
#include "base/random.h"
#include "block/scattered_format_test.h"
#include "nodes/raw.h"
#include "sim/sim_storage.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using sim::SimDisk;
using sim::SimDiskOptions;
using sim::SimFaults;
using sim::SimStorageNode;
using sim::SimWorld;

constexpr uint64_t kDiskBytes = 40 * ScatteredNode::kCluster + 1000;
constexpr uint64_t kBackingBytes = 25 * ScatteredNode::kCluster + 512;
constexpr size_t kOwners = 8;

std::vector<std::byte> noise(uint64_t seed, size_t length) {
  Random random(seed);
  std::vector<std::byte> bytes(length);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
  return bytes;
}

std::unique_ptr<SharedStorage> storage_over(SimDisk& disk, const char* name, uint32_t id) {
  return std::make_unique<SharedStorage>(std::make_unique<SimStorageNode>(disk, name, id));
}

// A disk of scattered clusters over a raw backing image that is shorter.
struct Stage {
  Stage(uint64_t seed, uint32_t block_size, bool has_backing)
      : world(seed),
        content(kDiskBytes),
        disk(disk_options(block_size), seed, nullptr, &faults),
        base(SimDiskOptions(), seed) {
    std::shared_ptr<DeviceNode> backing;
    if (has_backing) {
      const std::vector<std::byte> below = noise(seed, kBackingBytes);
      base.poke(0, below);
      std::copy(below.begin(), below.end(), content.begin());
      auto raw = std::make_unique<RawNode>(storage_over(base, "base", 2), ByteCount(0),
                                           ByteCount(kBackingBytes));
      backing = std::make_shared<DeviceNode>("base", 2, std::move(raw), nullptr);
    }
    auto format =
        std::make_unique<ScatteredNode>(storage_over(disk, "disk", 1), ByteCount(kDiskBytes), seed);
    scattered = format.get();
    device = std::make_unique<DeviceNode>("disk", 1, std::move(format), std::move(backing));
  }
  static SimDiskOptions disk_options(uint32_t block_size) {
    SimDiskOptions options;
    options.block_size = block_size;
    options.memory_alignment = block_size;
    return options;
  }

  SimWorld world;
  std::vector<std::byte> content;  // what the guest must see
  SimFaults faults;
  SimDisk disk, base;
  std::unique_ptr<DeviceNode> device;
  ScatteredNode* scattered = nullptr;
};

// What one coroutine alone changes.
struct Property {
  uint64_t offset;
  uint64_t length;
};

Task<void> expect_content(DeviceQueue& queue, Stage& stage, Property property) {
  std::vector<std::byte> read(property.length, std::byte{0xee});
  co_await queue.read(GuestOffset(property.offset), MutableBuffers(MutableBytes(read)));
  EXPECT_TRUE(std::equal(read.begin(), read.end(),
                         stage.content.begin() + static_cast<long>(property.offset)))
      << "at " << property.offset << ", " << property.length << " bytes";
}

// After a failure the bytes are as before, as asked, or a mix; the guest sees them, and then they
// stay.
Task<void> adopt_content(DeviceQueue& queue, Stage& stage, Property property) {
  MutableBytes there = MutableBytes(stage.content).subspan(property.offset, property.length);
  co_await queue.read(GuestOffset(property.offset), MutableBuffers(there));
}

Task<void> change_one(DeviceQueue& queue, Stage& stage, Property part, Random& random) {
  MutableBytes there = MutableBytes(stage.content).subspan(part.offset, part.length);
  const GuestRange range(GuestOffset(part.offset), ByteCount(part.length));
  Result<void> done;
  if (random.chance(25)) {
    fill_zero(there);
    ZeroOptions options;
    options.fua = random.chance(20);
    done = co_await queue.write_zeroes(range, options).result();
  } else if (random.chance(15)) {
    done = co_await queue.discard(range).result();
    if (done.ok()) done = co_await adopt_content(queue, stage, part).result();
  } else {
    copy_bytes(noise(random.next(), part.length), there);
    WriteOptions options;
    options.fua = random.chance(20);
    const std::vector<std::byte> source(there.begin(), there.end());
    done = co_await queue.write(range.offset, ConstBuffers(Bytes(source)), options).result();
  }
  if (done.ok()) co_return;
  EXPECT_EQ(done.error().errno_value, EIO);
  co_await adopt_content(queue, stage, part);
}

Task<void> own(DeviceQueue& queue, Stage& stage, const std::vector<Property>& properties,
               uint64_t seed) {
  Random random(seed);
  if (properties.empty()) co_return;
  for (int i = 0; i < 30; ++i) {
    const Property whole = properties[random.below(properties.size())];
    const uint64_t begin = random.below(whole.length);
    const Property part{whole.offset + begin, 1 + random.below(whole.length - begin)};
    if (random.chance(30)) {
      co_await expect_content(queue, stage, part);
    } else {
      co_await change_one(queue, stage, part, random);
    }
  }
}

std::vector<std::vector<Property>> deal_out(Random& random) {
  std::vector<std::vector<Property>> dealt(kOwners);
  for (uint64_t at = 0; at < kDiskBytes;) {
    const uint64_t longest = random.chance(40) ? 20'000 : 2'000;
    const uint64_t length = std::min(kDiskBytes - at, 1 + random.below(longest));
    dealt[random.below(kOwners)].push_back({at, length});
    at += length;
  }
  return dealt;
}

Task<void> live(Shard& shard, Stage& stage, uint64_t seed) {
  std::unique_ptr<DeviceQueue> queue = co_await stage.device->open_queue(shard);
  Random random(seed);
  const std::vector<std::vector<Property>> dealt = deal_out(random);
  auto one = [&](size_t i) { return own(*queue, stage, dealt[i], sim::mix_seed(seed, i)); };
  co_await when_all(kOwners, one);
  // All of it in one request, which falls into many pieces.
  const Property everything{0, kDiskBytes};
  co_await expect_content(*queue, stage, everything);
  queue.reset();
  co_await stage.device->close();
}

void expect_right(Stage& stage, uint64_t seed) {
  auto body = [&](Shard& shard) { return live(shard, stage, seed); };
  Result<void> done = stage.world.run(body);
  EXPECT_TRUE(done.ok()) << stage.world.diagnostics().describe(done.error());
  EXPECT_EQ(stage.scattered->pins(), 0u);
  EXPECT_FALSE(stage.scattered->is_any_busy());
  EXPECT_GT(stage.scattered->allocations(), 5u);
}

TEST(AccessTest, EveryByteIsWhereTheGuestPutIt) {
  sim::for_each_seed(60, [](uint64_t seed) {
    Stage stage(seed, seed % 2 == 0 ? 1 : 512, false);
    expect_right(stage, seed);
  });
}

TEST(AccessTest, AndWhereTheBackingImageHasIt) {
  sim::for_each_seed(60, [](uint64_t seed) {
    Stage stage(seed, seed % 2 == 0 ? 1 : 512, true);
    expect_right(stage, seed);
  });
}

// One failing request of the image's storage in each run: reported, abandoned, nothing else
// touched.
TEST(AccessTest, AFailureHurtsNobodyElseAndNothingIsLeftBegun) {
  uint64_t abandoned = 0;
  sim::for_each_seed(150, [&abandoned](uint64_t seed) {
    Stage stage(seed, 512, true);
    stage.faults.only = seed % 2 == 0 ? sim::SimOperation::kWrite : sim::SimOperation::kRead;
    stage.faults.fail_at = seed % 60;
    // Reading back what a failure left must not fail too, so at most one does.
    auto body = [&](Shard& shard) { return live(shard, stage, seed); };
    Result<void> done = stage.world.run(body);
    if (!done.ok()) {  // a read that was to show its content
      EXPECT_EQ(done.error().errno_value, EIO);
      auto close = [&](Shard&) { return stage.device->close(); };
      EXPECT_TRUE(stage.world.run(close).ok());
    }
    EXPECT_EQ(stage.scattered->pins(), 0u);
    EXPECT_FALSE(stage.scattered->is_any_busy());
    abandoned += stage.scattered->abandoned();
  });
  EXPECT_TRUE(sim::is_seed_given() || abandoned > 10) << abandoned;
}

// --- block status --------------------------------------------------------------------------------

TEST(AccessTest, BlockStatusTellsLayersApart) {
  Stage stage(1, 1, true);
  auto body = [&](Shard& shard) -> Task<void> {
    std::unique_ptr<DeviceQueue> queue = co_await stage.device->open_queue(shard);
    std::vector<std::byte> source(4096, std::byte{1});
    WriteOptions options;
    co_await queue->write(GuestOffset(4096), ConstBuffers(Bytes(source)), options);
    co_await queue->write_zeroes(GuestRange(GuestOffset(8192), ByteCount(4096)), ZeroOptions());
    auto at = [&](uint64_t offset, uint32_t depth) {
      return queue->block_status(GuestRange(GuestOffset(offset), ByteCount(kDiskBytes - offset)),
                                 depth);
    };
    BlockStatus below = co_await at(0, 9);
    EXPECT_TRUE(below.present && below.data && below.host.has_value());
    EXPECT_EQ(below.depth, 1u);
    EXPECT_EQ(below.length.value(), 4096u);
    BlockStatus unseen = co_await at(0, 0);
    EXPECT_FALSE(unseen.present || unseen.data || unseen.zero);
    BlockStatus here = co_await at(4096, 9);
    EXPECT_TRUE(here.present && here.data && here.host.has_value());
    EXPECT_EQ(here.depth, 0u);
    EXPECT_EQ(here.length.value(), 4096u);
    BlockStatus zero = co_await at(8192, 9);
    EXPECT_TRUE(zero.present && zero.zero && !zero.data);
    BlockStatus beyond = co_await at(kBackingBytes, 9);
    EXPECT_TRUE(beyond.zero && !beyond.present && !beyond.data);
    EXPECT_EQ(beyond.length.value(), kDiskBytes - kBackingBytes);
    queue.reset();
    co_await stage.device->close();
  };
  Result<void> done = stage.world.run(body);
  EXPECT_TRUE(done.ok()) << stage.world.diagnostics().describe(done.error());
}

}  // namespace
}  // namespace ringdisk
