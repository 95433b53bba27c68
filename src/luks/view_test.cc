// SPDX-License-Identifier: Apache-2.0
// The view: what lies below is what dm-crypt would have written there, neighbours in a crypto
// sector survive each other, nobody's buffer changes, faults and power cuts lose nothing.
#include "luks/view.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "async/scope.h"
#include "base/random.h"
#include "nodes/mem.h"
#include "nodes/raw.h"
#include "runtime/shard.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"
#include "sim/model_run.h"
#include "sim/sim_storage.h"
#include "sim/sim_world.h"
#include "sim/storage_contract.h"

namespace ringdisk::luks {
namespace {

using sim::SimWorld;

std::shared_ptr<const SectorCipher> test_cipher(const char* spec = "aes-xts-plain64",
                                                size_t key_bytes = 64, uint32_t sector = 512) {
  std::vector<std::byte> key(key_bytes);
  Random random(7);
  for (std::byte& byte : key) byte = static_cast<std::byte>(random.next());
  return make_sector_cipher(CipherSpec::parse(spec).value(), key, sector, CpuFeatures::detect())
      .value();
}

LuksViewOptions view_options(uint64_t payload_offset, uint32_t sector = 512) {
  LuksViewOptions options;
  options.cipher = test_cipher("aes-xts-plain64", 64, sector);
  options.payload_offset = ByteCount(payload_offset);
  return options;
}

std::unique_ptr<SharedStorage> new_mem(uint64_t size, uint32_t block_size = 1) {
  MemOptions options;
  options.block_size = block_size;
  return std::make_unique<SharedStorage>(
      std::make_unique<MemNode>("mem", 1, ByteCount(size), options));
}

// --- the contract of storages
// ---------------------------------------------------------------------

Task<std::unique_ptr<StorageNode>> open_512(const World&, ByteCount size) {
  constexpr uint64_t kOffset = 1 << 20;
  co_return std::make_unique<LuksView>(new_mem(size.value() + kOffset), view_options(kOffset));
}
Task<std::unique_ptr<StorageNode>> open_4096(const World&, ByteCount size) {
  co_return std::make_unique<LuksView>(new_mem(size.value() + 4096), view_options(4096, 4096));
}
Task<std::unique_ptr<StorageNode>> open_on_4096(const World&, ByteCount size) {
  co_return std::make_unique<LuksView>(new_mem(size.value() + 8192, 4096), view_options(8192));
}
// The payload begins within a block of the child.
Task<std::unique_ptr<StorageNode>> open_across(const World&, ByteCount size) {
  co_return std::make_unique<LuksView>(new_mem(size.value() + 4096, 4096), view_options(1536));
}
Task<std::unique_ptr<StorageNode>> open_fixed(const World&, ByteCount size) {
  LuksViewOptions options = view_options(4096);
  options.cipher = test_cipher("aes-cbc-essiv:sha256", 32);
  options.payload_size = size;
  co_return std::make_unique<LuksView>(new_mem(size.value() + 4096 + 77), options);
}

// Every cipher work is worth handing over: 40 us for 4 KiB.
LuksViewOptions offloading(const World& world, LuksViewOptions options) {
  options.shards = world.shards;
  options.ns_per_byte = {10, 10};
  return options;
}
Task<std::unique_ptr<StorageNode>> open_offloading(const World& world, ByteCount size) {
  co_return std::make_unique<LuksView>(new_mem(size.value() + 4096),
                                       offloading(world, view_options(4096)));
}

RINGDISK_STORAGE_CONTRACT(luks_offloading, &open_offloading);
RINGDISK_STORAGE_CONTRACT(luks_512, &open_512);
RINGDISK_STORAGE_CONTRACT(luks_4096, &open_4096);
RINGDISK_STORAGE_CONTRACT(luks_on_4096_blocks, &open_on_4096);
RINGDISK_STORAGE_CONTRACT(luks_across_blocks, &open_across);
RINGDISK_STORAGE_CONTRACT(luks_fixed_cbc, &open_fixed);

// --- what lies below
// ------------------------------------------------------------------------------

std::vector<std::byte> drawn(Random& random, size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
  return bytes;
}

// Pieces of memory whose cuts lie anywhere in sectors.
struct Pieces {
  Pieces(MutableBytes bytes, std::initializer_list<size_t> lengths) {
    size_t at = 0;
    for (size_t length : lengths) {
      parts.push_back({bytes.data() + at, length});
      at += length;
    }
    CHECK_EQ(at, bytes.size());
  }
  std::vector<iovec> parts;
};

Task<void> write_both_and_look(Shard& shard, SharedStorage& mem, const LuksViewOptions& options) {
  SharedStorage view(std::make_unique<LuksView>(mem, options));
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(view, shard);
  std::unique_ptr<StorageAccess> below = co_await StorageAccess::open(mem, shard);
  Random random(11);
  std::vector<std::byte> plain = drawn(random, 16384);
  const std::vector<std::byte> before = plain;
  Pieces pieces(plain, {1000, 24, 4096, 1, 5119, 6144});
  ConstBuffers source(MutableBuffers(pieces.parts.data(), pieces.parts.size()));
  co_await access->write(HostOffset(8192), source);
  EXPECT_TRUE(plain == before) << "the caller's buffer was changed";
  std::vector<std::byte> ciphered(plain.size());
  co_await below->read(HostOffset(options.payload_offset.value() + 8192),
                       MutableBuffers(MutableBytes(ciphered)));
  EXPECT_FALSE(ciphered == plain);
  const uint64_t first = options.iv_offset + 8192 / 512;
  const MutableBytes all(ciphered);
  const size_t sector = options.cipher->sector_size();
  for (size_t at = 0; at < all.size(); at += sector) {
    const MutableBytes one = all.subspan(at, sector);
    EXPECT_TRUE(options.cipher->decrypt(first + at / 512, one, one).ok());
  }
  EXPECT_TRUE(ciphered == plain) << "not what lies below";
  std::vector<std::byte> read(plain.size());
  Pieces targets(read, {511, 1, 513, 7167, 8192});
  MutableBuffers target(targets.parts.data(), targets.parts.size());
  co_await access->read(HostOffset(8192), target);
  EXPECT_TRUE(read == plain);
}

TEST(LuksViewTest, WhatLiesBelowIsEachSectorUnderItsNumber) {
  for (uint32_t sector : {512u, 2048u, 4096u}) {
    for (uint64_t iv_offset : {0u, 64u}) {
      SimWorld world;
      std::unique_ptr<SharedStorage> mem = new_mem(1 << 20);
      LuksViewOptions options = view_options(40960, sector);
      options.iv_offset = iv_offset;
      auto body = [&](Shard& shard) { return write_both_and_look(shard, *mem, options); };
      ASSERT_TRUE(world.run(body).ok());
    }
  }
}

// As qcow2's data child: plain metadata and a view over all of one storage, which stays open.
Task<void> share_a_file(Shard& shard, SharedStorage& file) {
  Random random(12);
  const std::vector<std::byte> table = drawn(random, 65536), guest = drawn(random, 65536);
  std::vector<std::byte> read(65536);
  std::unique_ptr<StorageAccess> metadata = co_await StorageAccess::open(file, shard);
  {
    SharedStorage child(std::make_unique<LuksView>(file, view_options(0)));
    std::unique_ptr<StorageAccess> payload = co_await StorageAccess::open(child, shard);
    co_await metadata->write(HostOffset(0), ConstBuffers(Bytes(table)));
    co_await payload->write(HostOffset(65536), ConstBuffers(Bytes(guest)));
    EXPECT_EQ(payload->size().value(), 131072u);
    co_await payload->read(HostOffset(65536), MutableBuffers(MutableBytes(read)));
    EXPECT_TRUE(read == guest);
    payload.reset();
    co_await child.node->close();
  }
  co_await metadata->read(HostOffset(0), MutableBuffers(MutableBytes(read)));
  EXPECT_TRUE(read == table);
  co_await metadata->read(HostOffset(65536), MutableBuffers(MutableBytes(read)));
  EXPECT_FALSE(read == guest);
  EXPECT_TRUE(test_cipher()->decrypt(128, read, read).ok()) << "sectors count from byte 0";
  EXPECT_TRUE(read == guest);
}

TEST(LuksViewTest, BorrowsAStorageWithOffsetsAsTheyAre) {
  SimWorld world;
  std::unique_ptr<SharedStorage> file = new_mem(0);
  auto body = [&file](Shard& shard) { return share_a_file(shard, *file); };
  ASSERT_TRUE(world.run(body).ok());
}

// --- two halves of a sector
// -----------------------------------------------------------------------

constexpr uint64_t kHalfSectors = 24;

std::vector<std::byte> half_content(uint64_t sector, uint64_t half, uint64_t round) {
  const uint64_t value = 1 + (sector * 7 + half * 101 + round * 13) % 255;
  return std::vector<std::byte>(256, static_cast<std::byte>(value));
}

// Each shard writes its half of every sector, again and again, many at once.
Task<void> write_halves(Shard& shard, SharedStorage& view) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(view, shard);
  for (uint64_t round = 0; round < 4; ++round) {
    std::vector<std::vector<std::byte>> contents;
    for (uint64_t sector = 0; sector < kHalfSectors; ++sector) {
      contents.push_back(half_content(sector, shard.index(), round));
    }
    auto one = [&](size_t sector) {
      const HostOffset at(sector * 512 + shard.index() * 256);
      return access->write(at, ConstBuffers(Bytes(contents[sector])));
    };
    co_await when_all(kHalfSectors, one);
  }
}

Task<void> expect_halves(Shard& shard, SharedStorage& view) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(view, shard);
  for (uint64_t sector = 0; sector < kHalfSectors; ++sector) {
    for (uint64_t half : {0u, 1u}) {
      std::vector<std::byte> read(256);
      co_await access->read(HostOffset(sector * 512 + half * 256),
                            MutableBuffers(MutableBytes(read)));
      EXPECT_TRUE(read == half_content(sector, half, 3)) << "half " << half << " of " << sector;
    }
  }
}

// The storage lets requests pass each other, so without the lock a half would be lost.
TEST(LuksViewTest, TwoShardsWritingHalvesOfASectorLoseNothing) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    SimWorld world(seed, 2);
    sim::SimDisk disk(sim::SimDiskOptions::file(), seed);
    auto child =
        std::make_unique<SharedStorage>(std::make_unique<sim::SimStorageNode>(disk, "disk", 1));
    SharedStorage view(std::make_unique<LuksView>(std::move(child), view_options(4096)));
    auto write = [&view](Shard& shard) { return write_halves(shard, view); };
    ASSERT_TRUE(world.run_on_all(write).ok());
    auto look = [&view](Shard& shard) { return expect_halves(shard, view); };
    ASSERT_TRUE(world.run(look).ok());
    auto close = [&view](Shard&) { return view.node->close(); };
    ASSERT_TRUE(world.run(close).ok());
    ASSERT_FALSE(HasFailure());
  }
}

// --- edges
// ----------------------------------------------------------------------------------------

Task<void> discard_and_look(Shard& shard, SharedStorage& mem, bool allowed) {
  LuksViewOptions options = view_options(4096);
  options.allow_discards = allowed;
  SharedStorage view(std::make_unique<LuksView>(mem, options));
  EXPECT_EQ(view.node->limits().unmaps, allowed);
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(view, shard);
  std::vector<std::byte> bytes(65536, std::byte{9}), read(65536);
  co_await access->write(HostOffset(0), ConstBuffers(Bytes(bytes)));
  co_await access->discard(HostRange(HostOffset(0), ByteCount(65536)));
  co_await access->read(HostOffset(0), MutableBuffers(MutableBytes(read)));
  EXPECT_EQ(read == bytes, !allowed);
  std::unique_ptr<StorageAccess> below = co_await StorageAccess::open(mem, shard);
  co_await below->read(HostOffset(4096), MutableBuffers(MutableBytes(read)));
  EXPECT_EQ(read == std::vector<std::byte>(65536), allowed);
}

TEST(LuksViewTest, DiscardsPassOnlyWhenAllowed) {
  for (bool allowed : {false, true}) {
    SimWorld world;
    std::unique_ptr<SharedStorage> mem = new_mem(1 << 20);
    auto body = [&](Shard& shard) { return discard_and_look(shard, *mem, allowed); };
    ASSERT_TRUE(world.run(body).ok());
  }
}

Task<void> read_where_nothing_is(Shard& shard, SharedStorage& view) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(view, shard);
  std::vector<std::byte> bytes(4096);
  co_await access->read(HostOffset(0), MutableBuffers(MutableBytes(bytes)));
  Result<void> done =
      co_await access->read(HostOffset(61440), MutableBuffers(MutableBytes(bytes))).result();
  EXPECT_FALSE(done.ok());
  if (done.ok()) co_return;
  EXPECT_EQ(name_of(done.error().kind), name_of(ErrorKind::kCorrupt));
  EXPECT_EQ(done.error().offset, 61440u);
  EXPECT_EQ(done.error().node, 1u);
}

TEST(LuksViewTest, ATruncatedPayloadIsAnErrorAndNotGarbage) {
  SimWorld world;
  LuksViewOptions options = view_options(4096);
  options.payload_size = ByteCount(65536);
  SharedStorage view(std::make_unique<LuksView>(new_mem(65536), options));
  auto body = [&view](Shard& shard) { return read_where_nothing_is(shard, view); };
  ASSERT_TRUE(world.run(body).ok());
}

TEST(LuksViewTest, SizesAreWholeSectorsOfThePayload) {
  EXPECT_EQ(LuksView(new_mem(10000), view_options(4096)).size().value(), 5632u);
  EXPECT_EQ(LuksView(new_mem(10000), view_options(4096, 4096)).size().value(), 4096u);
  EXPECT_EQ(LuksView(new_mem(4096), view_options(4096)).size().value(), 0u);
  EXPECT_EQ(LuksView(new_mem(100), view_options(4096)).size().value(), 0u);
}

TEST(LuksViewTest, AdvertisesTheCryptoSectorAndNoShortCuts) {
  const LuksView view(new_mem(1 << 20), view_options(4096, 2048));
  EXPECT_EQ(view.limits().block_size, 2048u);
  EXPECT_FALSE(view.limits().fast_zero);
  EXPECT_FALSE(view.limits().grown_reads_zero);
  EXPECT_FALSE(view.limits().unmaps);
  EXPECT_TRUE(view.limits().grows);
  EXPECT_EQ(LuksView(new_mem(1 << 20, 4096), view_options(4096)).limits().block_size, 4096u);
  EXPECT_EQ(LuksView(new_mem(1 << 20, 4096), view_options(512)).limits().block_size, 512u);
}

// Else a block of the file, padded in front of the view, would take with it what others have
// written beside: qcow2's tables lie in its file, too.
TEST(LuksViewTest, ABorrowedChildIsPaddedInFrontOfTheChildAlone) {
  const std::unique_ptr<SharedStorage> file = new_mem(1 << 20, 4096);
  EXPECT_EQ(LuksView(*file, view_options(0)).limits().block_size, 512u);
}

// --- one queue on every core
// ----------------------------------------------------------------------

Task<void> read_and_compare(StorageAccess& access, uint64_t offset,
                            const std::vector<std::byte>& all, size_t length) {
  std::vector<std::byte> read(length);
  co_await access.read(HostOffset(offset), MutableBuffers(MutableBytes(read)));
  EXPECT_TRUE(std::equal(read.begin(), read.end(), all.begin() + static_cast<long>(offset)));
}

Task<void> read_much(Shard& shard, LuksView*& shown, const World& world, size_t count,
                     size_t length) {
  auto node =
      std::make_unique<LuksView>(new_mem((1 << 20) + 4096), offloading(world, view_options(4096)));
  shown = node.get();
  SharedStorage view(std::move(node));
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(view, shard);
  Random random(21);
  const std::vector<std::byte> all = drawn(random, 1 << 20);
  co_await access->write(HostOffset(0), ConstBuffers(Bytes(all)));
  const uint64_t helped_writing = shown->helped();
  EXPECT_GT(helped_writing, 10u);
  auto one = [&](size_t i) {
    return read_and_compare(*access, (i * 12288) % (1 << 19), all, length);
  };
  co_await when_all(count, one);
  EXPECT_GT(shown->helped(), helped_writing);
  access.reset();
  co_await view.node->close();
}

TEST(LuksViewTest, OthersHelpWithLargeRequestsAndWithManySmallOnes) {
  struct Load {
    size_t count, length;
  };
  for (const Load& load : {Load{1, 400000 / 512 * 512}, Load{64, 4096}}) {
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      SimWorld world(seed, 3);
      LuksView* shown = nullptr;
      auto body = [&](Shard& shard) {
        return read_much(shard, shown, world.world(), load.count, load.length);
      };
      ASSERT_TRUE(world.run(body).ok());
    }
  }
}

// --- faults and power cuts
// ------------------------------------------------------------------------

constexpr uint64_t kSweepOffset = 8192;

Task<void> create_zeroed(const World&, SharedStorage& storage, ByteCount size) {
  SharedStorage view(std::make_unique<LuksView>(storage, view_options(kSweepOffset)));
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(view, Shard::current());
  co_await access->write_zeroes(HostRange(HostOffset(0), size));
  co_await access->flush();
}

Task<std::shared_ptr<DeviceNode>> open_device(const World& world,
                                              std::unique_ptr<SharedStorage> storage, bool) {
  auto view =
      std::make_unique<LuksView>(std::move(storage), offloading(world, view_options(kSweepOffset)));
  const ByteCount size = view->size();
  auto shared = std::make_unique<SharedStorage>(std::move(view));
  auto raw = std::make_unique<RawNode>(std::move(shared), ByteCount(0), size);
  co_return std::make_shared<DeviceNode>("disk", 2, std::move(raw), nullptr);
}

sim::ImageFormat luks_disk() {
  sim::ImageFormat format;
  format.name = "luks";
  format.create = &create_zeroed;
  format.open = &open_device;
  return format;
}

TEST(LuksViewSweepTest, EveryRequestBelowMayFail) {
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    sim::DeviceFaultOptions options;
    options.workload.operations = 60;
    options.workload.length_max = 20000;
    EXPECT_GT(sim::run_device_fault_sweep(luks_disk(), seed, options), 50u);
  }
}

TEST(LuksViewSweepTest, FlushedSectorsSurviveThePower) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    sim::DeviceCrashOptions options;
    EXPECT_GT(sim::run_device_crash_sweep(luks_disk(), seed, options), 100u);
  }
}

}  // namespace
}  // namespace ringdisk::luks
