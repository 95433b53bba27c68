// SPDX-License-Identifier: Apache-2.0
// Damaged and hostile images, and images whose features restrict what may be done: what is refused
// at open, what is found later, and what an open changes.
#include <gtest/gtest.h>

#include <cerrno>

#include "qcow2/image_stage_test.h"

namespace ringdisk::qcow2 {
namespace {

constexpr ByteCount kSize(4 << 20);
constexpr uint64_t kCluster = 4096;

// A world with one image on one disk, whose bytes a test may change before it is opened. Layout of
// the image: header, refcount table, refcount block, L1 table (2 entries), each one cluster.
class DamageTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kRefcountBlockAt = 2 * kCluster;
  static constexpr uint64_t kL1At = 3 * kCluster;
  static constexpr uint64_t kTableAt = 4 * kCluster;  // an L2 table that tests add
  static constexpr uint64_t kDataAt = 5 * kCluster;

  void SetUp() override { disk_.poke(0, encode_test_image(image_, kSize)); }

  void put64(uint64_t at, uint64_t value) { put_entry_on(disk_, at, value); }
  uint64_t get64(uint64_t at) { return entry_on(disk_, at); }
  // An L2 table for the first 2 MiB whose first entry is `entry`; refcounts as they should be.
  void add_table(uint64_t entry) {
    put64(kL1At, kCopied | kTableAt);
    disk_.poke(kTableAt, std::vector<std::byte>(2 * kCluster));
    put64(kTableAt, entry);
    const std::byte one[4] = {std::byte{0}, std::byte{1}, std::byte{0}, std::byte{1}};
    disk_.poke(kRefcountBlockAt + 4 * 2, one);
  }

  std::unique_ptr<SharedStorage> storage() {
    return std::make_unique<SharedStorage>(
        std::make_unique<sim::SimStorageNode>(disk_, "disk.qcow2", 1));
  }
  // Opens, lets `use` work with a queue, closes. The open's error, or the use's.
  template <class Use>
  Result<void> with_queue(bool read_only, Use use) {
    auto steps = [&](Shard& shard) { return run_steps(shard, read_only, use); };
    return world_.run(steps);
  }
  template <class Use>
  Task<void> run_steps(Shard& shard, bool read_only, Use& use) {
    std::shared_ptr<DeviceNode> node =
        co_await open_test_image(world_.world(), image_, nullptr, storage(), read_only);
    Result<std::unique_ptr<DeviceQueue>> queue = co_await node->open_queue(shard).result();
    Result<void> used;
    if (queue.ok()) {
      used = co_await use(*queue.value()).result();
      queue.value().reset();
    } else {
      used = queue.error();
    }
    Result<void> closed = co_await node->close().result();
    static_cast<void>(closed.ok());
    co_await std::move(used);
  }
  static Task<void> nothing(DeviceQueue&) { co_return; }
  std::string refusal(const Result<void>& result) {
    return result.ok() ? "" : world_.diagnostics().describe(result.error());
  }

  TestImage image_;
  sim::SimWorld world_{sim::seed_or(1), 1};
  sim::SimDisk disk_{sim::SimDiskOptions::file(), 1};
};

Task<void> write_at(DeviceQueue& queue, uint64_t offset) {
  std::vector<std::byte> bytes(512, std::byte{7});
  co_await queue.write(GuestOffset(offset), ConstBuffers(Bytes(bytes)), WriteOptions());
}
Task<void> read_at(DeviceQueue& queue, uint64_t offset) {
  std::vector<std::byte> bytes(512);
  co_await queue.read(GuestOffset(offset), MutableBuffers(MutableBytes(bytes)));
}

// Writing to the damaged cluster fails, then nothing can be written any more; reading can.
Task<void> expect_damage_at_0(DeviceQueue& queue) {
  Result<void> damaged = co_await write_at(queue, 100).result();
  EXPECT_FALSE(damaged.ok());
  if (!damaged.ok()) {
    EXPECT_EQ(damaged.error().kind, ErrorKind::kCorrupt);
  }
  Result<void> elsewhere = co_await write_at(queue, 3 << 20).result();
  EXPECT_FALSE(elsewhere.ok());
  Result<void> read = co_await read_at(queue, 3 << 20).result();
  EXPECT_TRUE(read.ok());
}

TEST_F(DamageTest, AnEntryThatPointsAtATableIsNeitherWrittenThroughNorForgotten) {
  for (uint64_t target : {uint64_t{0} + kCluster, kRefcountBlockAt, kL1At, kTableAt}) {
    add_table(kCopied | target);
    put64(kIncompatibleFeaturesAt, 0);
    const uint64_t before = get64(target + 96);
    EXPECT_EQ(refusal(with_queue(false, &expect_damage_at_0)), "");
    EXPECT_EQ(get64(target + 96), before);
    EXPECT_EQ(get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
    // From now on it is opened for reading only.
    EXPECT_NE(refusal(with_queue(false, &nothing)).find("marked as corrupt"), std::string::npos);
    EXPECT_EQ(refusal(with_queue(true, &nothing)), "");
  }
}

TEST_F(DamageTest, EntriesThatBreakTheSpecificationAreErrors) {
  for (uint64_t entry : {kCopied | (kDataAt + 512), kCopied | kDataAt | 16, kCopied,
                         uint64_t{1} << 58 | kDataAt, kCompressed}) {
    add_table(entry);
    put64(kIncompatibleFeaturesAt, 0);
    auto read_first = [](DeviceQueue& queue) { return read_at(queue, 0); };
    Result<void> read = with_queue(true, read_first);
    ASSERT_FALSE(read.ok()) << entry;
    EXPECT_EQ(read.error().kind, ErrorKind::kCorrupt);
    EXPECT_EQ(refusal(with_queue(false, &expect_damage_at_0)), "");
  }
}

// Whoever only reads may be the first to meet it.
Task<void> read_damage_at_0(DeviceQueue& queue) {
  Result<void> read = co_await read_at(queue, 0).result();
  EXPECT_FALSE(read.ok());
  if (!read.ok()) {
    EXPECT_EQ(read.error().errno_value, EIO);
  }
  co_await read_at(queue, 1 << 20);
  co_await read_at(queue, 3 << 20);
  Result<void> written = co_await write_at(queue, 1 << 20).result();
  EXPECT_FALSE(written.ok());
}

TEST_F(DamageTest, AReadThatMeetsDamageMarksAnImageThatIsOpenForWriting) {
  for (uint64_t entry : {kCopied | kL1At, kCopied | (kDataAt + 512), kCopied | kDataAt | 16}) {
    add_table(entry);
    put64(kIncompatibleFeaturesAt, 0);
    EXPECT_EQ(refusal(with_queue(false, &read_damage_at_0)), "");
    EXPECT_EQ(get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
    EXPECT_NE(refusal(with_queue(false, &nothing)).find("check -r all"), std::string::npos);
  }
}

TEST_F(DamageTest, ACompressedClusterOfGarbageIsAnErrorAndNoDamageOfTables) {
  add_table(kCompressed | kDataAt);
  std::vector<std::byte> garbage(kCluster, std::byte{0xff});
  disk_.poke(kDataAt, garbage);
  auto use = [](DeviceQueue& queue) -> Task<void> {
    Result<void> read = co_await read_at(queue, 0).result();
    EXPECT_FALSE(read.ok());
    co_await write_at(queue, 1 << 20);
  };
  EXPECT_EQ(refusal(with_queue(false, use)), "");
  EXPECT_EQ(get64(kIncompatibleFeaturesAt), 0u);
  auto read_first = [](DeviceQueue& queue) { return read_at(queue, 0); };
  EXPECT_EQ(refusal(with_queue(true, read_first)),
            "disk.qcow2: the compressed cluster of L2 entry 0 of L1 entry 0 (guest offset 0), at "
            "byte 20480, cannot be decompressed");
}

TEST_F(DamageTest, L1EntriesThatBreakTheSpecificationAreErrors) {
  for (uint64_t entry : {kCopied | (kTableAt + 512), kCopied, kCopied | kTableAt | 1}) {
    put64(kL1At, entry);
    put64(kIncompatibleFeaturesAt, 0);
    EXPECT_EQ(refusal(with_queue(false, &expect_damage_at_0)), "");
  }
}

// --- what a person reads

constexpr const char* kAdvice = "; run 'ringdisk check disk.qcow2'";

TEST_F(DamageTest, MessagesNameTheEntryAndSayWhatToDo) {
  auto read_first = [](DeviceQueue& queue) { return read_at(queue, 0); };
  auto read_later = [](DeviceQueue& queue) { return read_at(queue, (2 << 20) + 7 * kCluster); };
  put64(kL1At + 8, kCopied | 1);
  EXPECT_EQ(refusal(with_queue(true, read_later)),
            std::string("disk.qcow2: L1 entry 1 (guest offset 2097152) is damaged") + kAdvice);
  put64(kL1At + 8, kCopied | kTableAt);
  disk_.poke(kTableAt, std::vector<std::byte>(kCluster));
  put64(kTableAt + 7 * 8, kCopied | kDataAt | 512);
  EXPECT_EQ(refusal(with_queue(true, read_later)),
            std::string("disk.qcow2: L2 entry 7 of L1 entry 1 (guest offset 2125824) is damaged") +
                kAdvice);
  put64(kL1At, kCopied | uint64_t{1} << 40);
  EXPECT_EQ(refusal(with_queue(true, read_first)),
            std::string("disk.qcow2: the L2 table of L1 entry 0 (guest offset 0), at byte "
                        "1099511627776, lies beyond the end of the file") +
                kAdvice);
}

TEST_F(DamageTest, AWriteThatComesTooLateSaysWhy) {
  add_table(kCopied | kDataAt | 8);
  auto write_twice = [](DeviceQueue& queue) -> Task<void> {
    Result<void> first = co_await write_at(queue, 0).result();
    EXPECT_FALSE(first.ok());
    co_await write_at(queue, 1 << 20);
  };
  EXPECT_EQ(
      refusal(with_queue(false, write_twice)),
      std::string("disk.qcow2: the image is damaged and read-only since that was found") + kAdvice);
}

TEST_F(DamageTest, AClusterThatIsCountedTooLittleIsNamed) {
  add_table(kCopied | kDataAt);
  const std::byte none[10] = {};
  disk_.poke(kRefcountBlockAt, none);
  auto write_elsewhere = [](DeviceQueue& queue) { return write_at(queue, 1 << 20); };
  EXPECT_EQ(
      refusal(with_queue(false, write_elsewhere)),
      std::string("disk.qcow2: the cluster at byte 0 counts as free but is in use") + kAdvice);
}

TEST_F(DamageTest, AReadThatFailsSaysWhichTableItWasFor) {
  add_table(kCopied | kDataAt);
  sim::SimFaults faults;
  faults.only = sim::SimOperation::kRead;
  faults.fail_at = 2;  // behind header and L1 table
  disk_.set_faults(&faults);
  auto read_first = [](DeviceQueue& queue) { return read_at(queue, 0); };
  EXPECT_EQ(refusal(with_queue(true, read_first)),
            "disk.qcow2: the L2 table of L1 entry 0 (guest offset 0), at byte 16384, cannot be "
            "read: Input/output error");
  disk_.set_faults(nullptr);
}

TEST_F(DamageTest, TablesOnTablesOrBeyondTheEndRefuseWriting) {
  for (uint64_t table : {kRefcountBlockAt, kL1At, kCluster, uint64_t{1} << 40}) {
    put64(kL1At, kCopied | table);
    EXPECT_NE(refusal(with_queue(false, &nothing)).find("an L2 table at byte"), std::string::npos);
    EXPECT_EQ(refusal(with_queue(true, &nothing)), "");
  }
  put64(kL1At, 0);
  put64(kCluster + 8, kL1At);  // the refcount table's second entry
  EXPECT_NE(refusal(with_queue(false, &nothing)).find("a refcount block at byte"),
            std::string::npos);
}

TEST_F(DamageTest, AFreedClusterWithoutARefcountIsNoticed) {
  add_table(kCopied | kDataAt);
  const std::byte none[2] = {};
  disk_.poke(kRefcountBlockAt + 5 * 2, none);
  auto use = [](DeviceQueue& queue) -> Task<void> {
    co_await queue.discard(GuestRange(GuestOffset(0), ByteCount(kCluster)));
    co_await queue.flush();
  };
  EXPECT_EQ(refusal(with_queue(false, use)), "");
  EXPECT_EQ(get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
}

// Refcounts that call a table free are wrong, and who knows what else they miss.
TEST_F(DamageTest, ATableThatRefcountsCallFreeIsNotGivenOutAndEndsWriting) {
  add_table(kCopied | kDataAt);
  const std::byte none[10] = {};
  disk_.poke(kRefcountBlockAt, none);  // header, tables and the L2 table all count as free
  auto use = [](DeviceQueue& queue) -> Task<void> {
    for (uint64_t at = 0; at < 16; ++at) {
      Result<void> refused = co_await write_at(queue, (1 << 20) + at * kCluster).result();
      EXPECT_FALSE(refused.ok());
    }
    co_await read_at(queue, 0);
  };
  EXPECT_EQ(refusal(with_queue(false, use)), "");
  EXPECT_EQ(get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
  EXPECT_EQ(get64(0) >> 32, uint64_t{kMagic});
  EXPECT_EQ(get64(kL1At), kCopied | kTableAt);
  EXPECT_EQ(get64(kTableAt), kCopied | kDataAt);
}

TEST_F(DamageTest, TablesThatNoRefcountBlockCountsEndWriting) {
  add_table(kCopied | kDataAt);
  put64(kCluster, 0);  // the refcount table's first entry
  auto use = [](DeviceQueue& queue) -> Task<void> {
    Result<void> refused = co_await write_at(queue, 1 << 20).result();
    EXPECT_FALSE(refused.ok());
    co_await read_at(queue, 0);
  };
  EXPECT_EQ(refusal(with_queue(false, use)), "");
  EXPECT_EQ(get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
}

// An entry points at a cluster that counts as free: the next one of the file, or its only hole.
// What the guest writes through it must never be an L2 table.
class UncountedClusterTest : public DamageTest {
 protected:
  static constexpr uint64_t kTableMaps = 512 * kCluster;

  static Task<void> ask_for_a_table(DeviceQueue& queue) {
    co_await write_at(queue, 0);  // the entry is in memory
    Result<void> refused = co_await write_at(queue, kTableMaps).result();
    EXPECT_FALSE(refused.ok());
    if (!refused.ok()) {
      EXPECT_EQ(refused.error().kind, ErrorKind::kCorrupt);
    }
    std::vector<std::byte> bytes(512);
    co_await queue.read(GuestOffset(0), MutableBuffers(MutableBytes(bytes)));
    EXPECT_EQ(bytes, std::vector<std::byte>(512, std::byte{7}));
  }
};

TEST_F(UncountedClusterTest, TheNextOneOfTheFileBecomesNoTable) {
  add_table(kCopied | (kDataAt + kCluster));
  EXPECT_EQ(refusal(with_queue(false, &ask_for_a_table)), "");
  EXPECT_EQ(get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
  EXPECT_EQ(get64(kL1At + 8), 0u);
}

TEST_F(UncountedClusterTest, TheLastHoleOfADeviceBecomesNoTable) {
  ImageStage stage(image_, kSize, sim::SimDiskOptions::block_device(ByteCount(8 * kCluster), 512));
  stage.put64(kL1At, kCopied | kTableAt);
  stage.disk.poke(kTableAt, std::vector<std::byte>(kCluster));
  stage.put64(kTableAt, kCopied | kDataAt);
  // Refcounts of clusters 4 to 7: the table; the hole; two that nobody uses, so that there is no
  // room behind the end.
  stage.put64(kRefcountBlockAt + 4 * 2, 0x0001'0000'0001'0001);
  EXPECT_NE(stage.text_of(stage.use(&ask_for_a_table)), "");  // the close says it, too
  EXPECT_EQ(stage.get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
  EXPECT_EQ(stage.get64(kL1At + 8), 0u);
}

TEST_F(DamageTest, ACompressedClusterThatLiesOnATableIsNotFreed) {
  auto write = [](DeviceQueue& queue) { return write_at(queue, 0); };
  auto discard = [](DeviceQueue& queue) {
    return queue.discard(GuestRange(GuestOffset(0), ByteCount(kCluster)));
  };
  for (const ImageStage::Use& use : {ImageStage::Use(write), ImageStage::Use(discard)}) {
    add_table(kCompressed | kTableAt);
    put64(kIncompatibleFeaturesAt, 0);
    EXPECT_NE(refusal(with_queue(false, use)), "");
    EXPECT_EQ(get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
    EXPECT_EQ(get64(kTableAt), kCompressed | kTableAt);
  }
}

// As a change of the whole image leaves it that did not come to its end: a refcount too high,
// COPIED still set beside it.
TEST_F(DamageTest, ADirtyImageIsRepairedBeforeItIsWritten) {
  add_table(kCopied | kDataAt);
  const std::byte two[2] = {std::byte{0}, std::byte{2}};
  disk_.poke(kRefcountBlockAt + 5 * 2, two);
  put64(kIncompatibleFeaturesAt, kIncompatibleDirty);
  ASSERT_EQ(refusal(with_queue(true, &nothing)), "");
  EXPECT_EQ(get64(kIncompatibleFeaturesAt), kIncompatibleDirty) << "a reader changes nothing";
  ASSERT_EQ(refusal(with_queue(false, &nothing)), "");
  EXPECT_EQ(get64(kIncompatibleFeaturesAt), 0u);
  auto check = [&](Shard&) { return check_test_image(world_.world(), image_, storage()); };
  EXPECT_TRUE(world_.run(check).ok());
}

TEST_F(DamageTest, AutoclearBitsAreClearedByAnOpenForWritingAlone) {
  put64(kAutoclearFeaturesAt, kAutoclearBitmaps | 1 << 9);
  EXPECT_EQ(refusal(with_queue(true, &nothing)), "");
  EXPECT_EQ(get64(kAutoclearFeaturesAt), kAutoclearBitmaps | 1 << 9);
  EXPECT_EQ(refusal(with_queue(false, &nothing)), "");
  EXPECT_EQ(get64(kAutoclearFeaturesAt), 0u);
}

TEST_F(DamageTest, AnOpenForWritingThatIsRefusedChangesNothing) {
  put64(kAutoclearFeaturesAt, kAutoclearBitmaps | 1 << 9);
  put64(kL1At, kCopied | kRefcountBlockAt);
  sim::SimFaults writes;
  writes.only = sim::SimOperation::kWrite;
  disk_.set_faults(&writes);
  EXPECT_NE(refusal(with_queue(false, &nothing)).find("an L2 table at byte"), std::string::npos);
  EXPECT_EQ(get64(kAutoclearFeaturesAt), kAutoclearBitmaps | 1 << 9);
  EXPECT_EQ(writes.requests, 0u);
  disk_.set_faults(nullptr);
}

// Shared clusters, as an internal snapshot leaves them: refcount two, no COPIED flag.
TEST_F(DamageTest, ASharedClusterIsCopiedWhenItIsWritten) {
  add_table(kDataAt);
  std::vector<std::byte> old(kCluster, std::byte{3});
  disk_.poke(kDataAt, old);
  const std::byte two[2] = {std::byte{0}, std::byte{2}};
  disk_.poke(kRefcountBlockAt + 5 * 2, two);
  auto use = [](DeviceQueue& queue) -> Task<void> {
    co_await write_at(queue, 512);
    std::vector<std::byte> bytes(kCluster);
    co_await queue.read(GuestOffset(0), MutableBuffers(MutableBytes(bytes)));
    EXPECT_EQ(bytes[511], std::byte{3});
    EXPECT_EQ(bytes[512], std::byte{7});
    EXPECT_EQ(bytes[1024], std::byte{3});
  };
  EXPECT_EQ(refusal(with_queue(false, use)), "");
  std::vector<std::byte> kept(kCluster);
  disk_.peek(kDataAt, kept);
  EXPECT_EQ(kept, old);
  std::byte refcount[2];
  disk_.peek(kRefcountBlockAt + 5 * 2, refcount);
  EXPECT_EQ(load_be16(refcount), 1u);
}

TEST_F(DamageTest, ASharedTableIsCopiedWhenItIsChanged) {
  add_table(kDataAt);
  put64(kL1At, kTableAt);
  const std::byte two[4] = {std::byte{0}, std::byte{2}, std::byte{0}, std::byte{2}};
  disk_.poke(kRefcountBlockAt + 4 * 2, two);
  auto use = [](DeviceQueue& queue) { return write_at(queue, kCluster); };
  EXPECT_EQ(refusal(with_queue(false, use)), "");
  EXPECT_EQ(get64(kTableAt + 8), 0u);
  const uint64_t copy = get64(kL1At) & kOffsetMask;
  EXPECT_NE(copy, kTableAt);
  EXPECT_EQ(get64(copy), kDataAt);
  EXPECT_NE(get64(copy + 8), 0u);
  std::byte refcount[2];
  disk_.peek(kRefcountBlockAt + 4 * 2, refcount);
  EXPECT_EQ(load_be16(refcount), 1u);
}

}  // namespace
}  // namespace ringdisk::qcow2
