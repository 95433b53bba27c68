// SPDX-License-Identifier: Apache-2.0
// The simulated disk, above all its crash model: what may and what may not be there afterwards.
#include "sim/sim_storage.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>

#include "block/storage_access.h"
#include "sim/sim_world.h"

namespace ringdisk::sim {
namespace {

using Body = std::function<Task<void>(StorageAccess& storage)>;

Task<void> open_and_do(SimDisk& disk, Shard& shard, const Body& body) {
  SharedStorage storage(std::make_unique<SimStorageNode>(disk, "disk", 1));
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, shard);
  Result<void> done = co_await body(*access).result();
  access.reset();
  co_await storage.node->close();
  co_await std::move(done);
}

Result<void> with_storage(SimWorld& world, SimDisk& disk, const Body& body) {
  auto root = [&disk, &body](Shard& shard) { return open_and_do(disk, shard, body); };
  return world.run(root);
}

std::vector<std::byte> filled(size_t bytes, char with) {
  return std::vector<std::byte>(bytes, static_cast<std::byte>(with));
}
Task<void> write_char(StorageAccess& storage, uint64_t sector, size_t sectors, char with,
                      bool fua = false) {
  std::vector<std::byte> bytes = filled(sectors * kSectorBytes, with);
  WriteOptions options;
  options.fua = fua;
  co_await storage.write(HostOffset(sector * kSectorBytes), Bytes(bytes), options);
}
char char_at(const SimDisk& disk, uint64_t sector) {
  std::byte byte;
  disk.peek(sector * kSectorBytes, MutableBytes(&byte, 1));
  return byte == std::byte{0} ? '.' : static_cast<char>(byte);
}
std::string chars_of(const SimDisk& disk, uint64_t sectors) {
  std::string all;
  for (uint64_t sector = 0; sector < sectors; ++sector) all += char_at(disk, sector);
  return all;
}

// Every state of the first `sectors` sectors that a crash after `event` can leave, over many draws.
std::set<std::string> states_after(const SimDisk& disk, uint64_t event, uint64_t sectors) {
  std::set<std::string> states;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SimDisk crashed(disk, event, seed);
    states.insert(chars_of(crashed, sectors));
  }
  return states;
}

SimDiskOptions fixed_disk(uint64_t sectors) {
  SimDiskOptions options;
  options.size = ByteCount(sectors * kSectorBytes);
  return options;
}

Task<void> write_ab_then_flush(StorageAccess& storage) {
  co_await write_char(storage, 0, 2, 'a');
  co_await storage.flush();
  co_await write_char(storage, 1, 2, 'b');
}

TEST(SimStorageTest, ACrashKeepsWhatWasFlushedAndAnySectorsOfWhatWasNot) {
  SimWorld world(1);
  CrashLog log;
  SimDisk disk(fixed_disk(3), 1, &log);
  ASSERT_TRUE(with_storage(world, disk, &write_ab_then_flush).ok());
  EXPECT_EQ(chars_of(disk, 3), "abb");
  EXPECT_EQ(states_after(disk, log.events(), 3),
            (std::set<std::string>{"aa.", "ab.", "aab", "abb"}));
  EXPECT_EQ(states_after(disk, 0, 3), (std::set<std::string>{"..."}));
}

Task<void> overwrite_twice(StorageAccess& storage) {
  co_await write_char(storage, 0, 1, 'a', true);
  co_await write_char(storage, 0, 1, 'b');
  co_await write_char(storage, 0, 1, 'c');
}

TEST(SimStorageTest, ASectorHoldsAnyVersionSinceTheDurableOne) {
  SimWorld world(1);
  CrashLog log;
  SimDisk disk(fixed_disk(1), 1, &log);
  ASSERT_TRUE(with_storage(world, disk, &overwrite_twice).ok());
  EXPECT_EQ(states_after(disk, log.events(), 1), (std::set<std::string>{"a", "b", "c"}));
}

Task<void> flush_beside_write(StorageAccess& storage) {
  auto one = [&storage](size_t which) {
    if (which == 0) return storage.flush();
    return write_char(storage, 0, 1, 'a');
  };
  co_await when_all(2, one);
}

TEST(SimStorageTest, AFlushDoesNotCoverAWriteThatHadNotCompletedBeforeIt) {
  for_each_seed(20, [](uint64_t seed) {
    SimWorld world(seed);
    CrashLog log;
    SimDisk disk(fixed_disk(1), seed, &log);
    ASSERT_TRUE(with_storage(world, disk, &flush_beside_write).ok());
    EXPECT_EQ(states_after(disk, log.events(), 1), (std::set<std::string>{".", "a"}));
  });
}

// The order that every journal and every copy on write stands on: sector 1 is pointed to by
// sector 0, so it has to be durable first.
Task<void> point_to(StorageAccess& storage, bool in_order) {
  co_await write_char(storage, 1, 1, 'd');
  if (in_order) co_await storage.flush();
  co_await write_char(storage, 0, 1, 'p');
  co_await storage.flush();
}
bool can_lose_what_is_pointed_to(const Body& workload, bool flush_lies, uint64_t seed) {
  SimWorld world(seed);
  CrashLog log;
  SimDiskOptions options = fixed_disk(2);
  options.flush_lies = flush_lies;
  SimDisk disk(options, seed, &log);
  EXPECT_TRUE(with_storage(world, disk, workload).ok());
  for (uint64_t event = 0; event <= log.events(); ++event) {
    if (states_after(disk, event, 2).contains("p.")) return true;
  }
  return false;
}

TEST(SimStorageTest, AWrongOrderOfWritesIsFound) {
  for_each_seed(5, [](uint64_t seed) {
    auto wrong = [](StorageAccess& storage) { return point_to(storage, false); };
    auto right = [](StorageAccess& storage) { return point_to(storage, true); };
    EXPECT_TRUE(can_lose_what_is_pointed_to(wrong, false, seed));
    EXPECT_FALSE(can_lose_what_is_pointed_to(right, false, seed));
    EXPECT_TRUE(can_lose_what_is_pointed_to(right, true, seed)) << "a flush that lies is found";
  });
}

Task<void> grow(StorageAccess& storage) {
  co_await write_char(storage, 0, 1, 'a');
  co_await storage.flush();
  co_await write_char(storage, 3, 1, 'b');
}

TEST(SimStorageTest, GrowthIsThereOrNotAndReadsAsZerosWhereNothingWasWritten) {
  SimWorld world(1);
  CrashLog log;
  SimDisk disk(SimDiskOptions::file(), 1, &log);
  ASSERT_TRUE(with_storage(world, disk, &grow).ok());
  std::set<std::string> states;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SimDisk crashed(disk, log.events(), seed);
    states.insert(chars_of(crashed, crashed.size() / kSectorBytes));
  }
  EXPECT_EQ(states, (std::set<std::string>{"a", "a...", "a..b"}));
}

Task<void> cut_and_grow(StorageAccess& storage) {
  co_await write_char(storage, 0, 3, 'a');
  co_await storage.flush();
  co_await storage.resize(ByteCount(kSectorBytes));
  co_await write_char(storage, 2, 1, 'b');
}

TEST(SimStorageTest, WhatWasCutDoesNotComeBackUnderWhatWasWrittenLater) {
  SimWorld world(1);
  CrashLog log;
  SimDisk disk(SimDiskOptions::file(), 1, &log);
  ASSERT_TRUE(with_storage(world, disk, &cut_and_grow).ok());
  std::set<std::string> states;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SimDisk crashed(disk, log.events(), seed);
    states.insert(chars_of(crashed, crashed.size() / kSectorBytes));
  }
  EXPECT_EQ(states, (std::set<std::string>{"aaa", "a", "a..", "a.b"}));
}

Task<void> zero_then_discard(StorageAccess& storage) {
  co_await storage.write_zeroes(HostRange(HostOffset(1024), ByteCount(1024)));
  co_await storage.flush();
  co_await storage.discard(HostRange(HostOffset(4096), ByteCount(4096)));
}

TEST(SimStorageTest, AUsedDeviceShowsItsOldBytesOnlyWhereNothingWasWritten) {
  SimWorld world(1);
  CrashLog log;
  SimDisk disk(SimDiskOptions::block_device(ByteCount(16 * 512), 512), 1, &log);
  ASSERT_TRUE(with_storage(world, disk, &zero_then_discard).ok());
  SimDisk crashed(disk, log.events(), 0);
  std::vector<std::byte> bytes(512);
  for (uint64_t sector = 0; sector < 16; ++sector) {
    crashed.peek(sector * 512, bytes);
    EXPECT_EQ(looks_stale(bytes), sector != 2 && sector != 3) << sector;
  }
}

// Random changes of one disk, one after another.
Task<void> churn(StorageAccess& storage, uint64_t seed) {
  Random random(seed);
  for (int i = 0; i < 60; ++i) {
    uint64_t offset = random.below(40 * kSectorBytes);
    uint64_t length = 1 + random.below(6 * kSectorBytes);
    std::vector<std::byte> bytes = filled(length, static_cast<char>('a' + random.below(26)));
    HostRange range{HostOffset(offset), ByteCount(length)};
    uint64_t kind = random.below(10);
    WriteOptions options;
    options.fua = random.chance(10);
    if (kind < 5) co_await storage.write(range.offset, Bytes(bytes), options);
    if (kind == 5 || kind == 6) co_await storage.write_zeroes(range);
    if (kind == 7) co_await storage.discard(range);
    if (kind == 8) co_await storage.resize(ByteCount(offset));
    if (kind == 9) co_await storage.flush();
  }
}
std::vector<std::byte> all_of(const SimDisk& disk) {
  std::vector<std::byte> bytes(disk.size());
  disk.peek(0, bytes);
  return bytes;
}

TEST(SimStorageTest, ACrashThatLosesNothingGivesWhatReadersSaw) {
  for_each_seed(100, [](uint64_t seed) {
    SimWorld world(seed);
    CrashLog log;
    SimDisk disk(SimDiskOptions::file(), seed, &log);
    auto body = [seed](StorageAccess& storage) { return churn(storage, seed); };
    ASSERT_TRUE(with_storage(world, disk, body).ok());
    EXPECT_EQ(all_of(SimDisk(disk, log.events(), 1)), all_of(disk));
  });
}

Task<void> churn_and_flush(StorageAccess& storage, uint64_t seed) {
  co_await churn(storage, seed);
  co_await storage.flush();
}

TEST(SimStorageTest, AfterAFlushEveryCrashGivesWhatReadersSaw) {
  for_each_seed(50, [](uint64_t seed) {
    SimWorld world(seed);
    CrashLog log;
    SimDisk disk(SimDiskOptions::file(), seed, &log);
    auto body = [seed](StorageAccess& storage) { return churn_and_flush(storage, seed); };
    ASSERT_TRUE(with_storage(world, disk, body).ok());
    EXPECT_EQ(log.undecided_at(log.events()), 0u);
    for (uint64_t subset = 0; subset < 10; ++subset) {
      EXPECT_EQ(all_of(SimDisk(disk, log.events(), subset)), all_of(disk));
    }
  });
}

Task<void> fail_flush_once(StorageAccess& storage, SimFaults& faults) {
  co_await write_char(storage, 0, 1, 'a');
  faults.only = SimOperation::kFlush;
  faults.fail_at = faults.requests;
  Result<void> failed = co_await storage.flush().result();
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().errno_value, EIO);
  co_await storage.flush();
}

TEST(SimStorageTest, WhatAFailedFlushShouldHaveSavedMayBeLostThoughALaterOneSucceeds) {
  SimWorld world(1);
  CrashLog log;
  SimFaults faults;
  SimDisk disk(fixed_disk(1), 1, &log, &faults);
  auto body = [&faults](StorageAccess& storage) { return fail_flush_once(storage, faults); };
  ASSERT_TRUE(with_storage(world, disk, body).ok());
  EXPECT_EQ(states_after(disk, log.events(), 1), (std::set<std::string>{".", "a"}));
}

Task<void> write_far_out(StorageAccess& storage) {
  constexpr uint64_t kFar = uint64_t{8} << 40;
  std::vector<std::byte> bytes = filled(1000, 'x');
  co_await storage.write(HostOffset(kFar), Bytes(bytes));
  co_await storage.write_zeroes(HostRange(HostOffset(0), ByteCount(kFar)));
  StorageExtent extent =
      co_await storage.find_extent(HostRange(HostOffset(0), ByteCount(kFar + 1)));
  EXPECT_TRUE(extent.zero);
  EXPECT_EQ(extent.length.value(), kFar);
}

TEST(SimStorageTest, TerabytesCostNothing) {
  SimWorld world(1);
  CrashLog log;
  SimDisk disk(SimDiskOptions::file(), 1, &log);
  ASSERT_TRUE(with_storage(world, disk, &write_far_out).ok());
  EXPECT_EQ(disk.written_bytes(), 1024u);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_LE(SimDisk(disk, log.events(), seed).written_bytes(), 1024u);
  }
}

Task<void> fill_up(StorageAccess& storage) { co_await write_char(storage, 0, 64, 'x'); }

TEST(SimStorageTest, AFullDiskSaysSo) {
  SimWorld world(1);
  SimDiskOptions options;
  options.space_bytes_max = 16 * 512;
  SimDisk disk(options, 1);
  Result<void> result = with_storage(world, disk, &fill_up);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().kind, ErrorKind::kNoSpace);
  EXPECT_EQ(result.error().errno_value, ENOSPC);
}

}  // namespace
}  // namespace ringdisk::sim
