// SPDX-License-Identifier: Apache-2.0
// Subclusters one by one: what a write, zeros and a discard do to the entry of their cluster, and
// what damage to its bitmap a check finds and mends.
#include <gtest/gtest.h>

#include <algorithm>

#include "async/scope.h"
#include "qcow2/check/damaged_image_test.h"
#include "qcow2/image_stage_test.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kCluster = 65536;
constexpr uint64_t kUnit = 2048;
constexpr uint64_t kAll = 0xffffffff;
constexpr ByteCount kSize(4 << 20);

TestImage extended_image(uint64_t backing_bytes = 0) {
  TestImage image;
  image.cluster_bits = 16;
  image.extended_l2 = true;
  image.backing_bytes = backing_bytes;
  return image;
}

GuestRange range_of(uint64_t at, uint64_t length) { return {GuestOffset(at), ByteCount(length)}; }

// An image, and its tables as they lie on the disk.
class Extended {
 public:
  explicit Extended(uint64_t backing_bytes = 0)
      : stage_(extended_image(backing_bytes), kSize, sim::SimDiskOptions::file()),
        tables_(stage_.disk, stage_.image) {}

  void use(ImageStage::Use body) {
    const Result<void> used = stage_.use(std::move(body));
    EXPECT_TRUE(used.ok()) << stage_.text_of(used);
    stage_.check();
  }
  void write(uint64_t at, uint64_t length, uint8_t stamp) {
    use([=](DeviceQueue& queue) { return write_stamped(queue, at, length, stamp); });
  }
  void expect(uint64_t at, uint64_t length, uint8_t stamp) {
    use([=](DeviceQueue& queue) { return expect_stamped(queue, at, length, stamp); });
  }
  void zero(uint64_t at, uint64_t length, bool may_unmap) {
    ZeroOptions options;
    options.may_unmap = may_unmap;
    const GuestRange range = range_of(at, length);
    use([=](DeviceQueue& queue) { return queue.write_zeroes(range, options); });
  }
  void discard(uint64_t at, uint64_t length) {
    const GuestRange range = range_of(at, length);
    use([=](DeviceQueue& queue) { return queue.discard(range); });
  }
  uint64_t allocated(uint64_t cluster) { return tables_.bitmap(cluster) & kAll; }
  uint64_t zeros(uint64_t cluster) { return tables_.bitmap(cluster) >> 32; }
  uint64_t host(uint64_t cluster) { return tables_.host_of(cluster); }
  DamagedTables& tables() { return tables_; }
  ImageStage& stage() { return stage_; }

 private:
  ImageStage stage_;
  DamagedTables tables_;
};

TEST(SubclustersTest, AWriteAllocatesWhatItTouchesAlone) {
  Extended image;
  image.write(3 * kUnit + 100, 50, 7);
  EXPECT_EQ(image.allocated(0), 1u << 3);
  EXPECT_EQ(image.zeros(0), 0u);
  const uint64_t host = image.host(0);
  EXPECT_NE(host, 0u);
  image.expect(3 * kUnit, 100, 0);
  image.expect(3 * kUnit + 100, 50, 7);
  image.write(5 * kUnit - 1, kUnit + 2, 8);
  EXPECT_EQ(image.allocated(0), 0x78u);
  EXPECT_EQ(image.host(0), host);
  image.expect(3 * kUnit + 100, 50, 7);
  image.expect(5 * kUnit - 1, kUnit + 2, 8);
  image.expect(6 * kUnit + 1, kCluster - 6 * kUnit - 1, 0);
}

TEST(SubclustersTest, AWriteGoesOnThroughAllocatedOnesAndClusters) {
  Extended image;
  image.write(kCluster - 4 * kUnit, kUnit, 1);
  image.write(kCluster + 2 * kUnit, kUnit, 2);
  image.write(kCluster - 6 * kUnit, 12 * kUnit, 3);
  EXPECT_EQ(image.allocated(0), 0xfc000000u);
  EXPECT_EQ(image.allocated(1), 0x3fu);
  image.expect(kCluster - 6 * kUnit, 12 * kUnit, 3);
}

// Zeros of whole subclusters are fast, since they are bits; others would have to be written.
Task<void> zero_fast(DeviceQueue& queue) {
  ZeroOptions fast;
  fast.fast_only = true;
  co_await queue.write_zeroes(range_of(4 * kUnit, 2 * kUnit), fast);
  Result<void> refused = co_await queue.write_zeroes(range_of(8 * kUnit, kUnit + 1), fast).result();
  EXPECT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().kind, ErrorKind::kUnsupported);
  // Around what is zero already nothing is written.
  co_await queue.write_zeroes(range_of(4 * kUnit + 5, 2 * kUnit - 7), fast);
}

TEST(SubclustersTest, FastZerosAreBits) {
  Extended image;
  image.write(0, kCluster, 5);
  image.use(&zero_fast);
  EXPECT_EQ(image.allocated(0), kAll & ~uint64_t{0x30});
  EXPECT_EQ(image.zeros(0), 0x30u);
  image.expect(4 * kUnit, 2 * kUnit, 0);
  image.expect(6 * kUnit, kCluster - 6 * kUnit, 5);
}

Task<void> expect_same(DeviceQueue& queue, uint64_t at, const std::vector<std::byte>& wanted) {
  std::vector<std::byte> bytes(wanted.size());
  co_await queue.read(GuestOffset(at), MutableBuffers(MutableBytes(bytes)));
  EXPECT_TRUE(bytes == wanted) << "at " << at;
}

// What lies below, up to the next stretch.
Task<void> expect_below(DeviceQueue& queue, uint64_t length) {
  const GuestRange all = range_of(0, kSize.value());
  const BlockStatus front = co_await queue.block_status(all, 9);
  EXPECT_EQ(front.length.value(), length);
  EXPECT_EQ(front.depth, 1u);
}

TEST(SubclustersTest, UntouchedOnesShowTheBackingImage) {
  Extended image(kSize.value());
  std::vector<std::byte> wanted(kUnit);
  image.stage().backing->peek(4 * kUnit, wanted);
  std::fill_n(wanted.begin() + 512, 512, std::byte{9});
  image.write(4 * kUnit + 512, 512, 9);
  EXPECT_EQ(image.allocated(0), 1u << 4);
  image.use([&](DeviceQueue& queue) { return expect_same(queue, 4 * kUnit, wanted); });
  image.use([&](DeviceQueue& queue) { return expect_below(queue, 4 * kUnit); });
}

TEST(SubclustersTest, ZerosAndDiscardsWorkOnSubclusters) {
  Extended image;
  image.write(0, kCluster, 5);
  EXPECT_EQ(image.allocated(0), kAll);
  const uint64_t host = image.host(0);
  image.zero(2 * kUnit, 3 * kUnit, true);
  EXPECT_EQ(image.allocated(0), kAll & ~0x1cu);
  EXPECT_EQ(image.zeros(0), 0x1cu);
  image.discard(10 * kUnit - 1, 2 * kUnit + 1);
  EXPECT_EQ(image.allocated(0), kAll & ~0xc1cu);
  EXPECT_EQ(image.zeros(0), 0x1cu);
  EXPECT_EQ(image.host(0), host);
  image.expect(0, 2 * kUnit, 5);
  image.expect(2 * kUnit, 3 * kUnit, 0);
  image.expect(9 * kUnit, kUnit, 5);
  image.expect(10 * kUnit, 2 * kUnit, 0);
  // Parts of subclusters are written out.
  image.zero(20 * kUnit + 10, kUnit, true);
  EXPECT_EQ(image.zeros(0), 0x1cu);
  image.expect(20 * kUnit + 10, kUnit, 0);
  image.expect(20 * kUnit, 10, 5);
  image.write(2 * kUnit, 3 * kUnit, 6);
  EXPECT_EQ(image.zeros(0), 0u);
  EXPECT_EQ(image.allocated(0), kAll & ~0xc00u);
  image.expect(2 * kUnit, 3 * kUnit, 6);
}

TEST(SubclustersTest, TheClusterGoesWithItsLastData) {
  Extended image;
  image.write(kUnit, 2 * kUnit, 5);
  image.discard(kUnit, kUnit);
  EXPECT_NE(image.host(0), 0u);
  image.discard(2 * kUnit, kUnit);
  EXPECT_EQ(image.host(0), 0u);
  image.write(0, kCluster, 5);
  image.zero(0, kCluster, true);
  EXPECT_EQ(image.host(0), 0u);
  EXPECT_EQ(image.zeros(0), kAll);
  image.write(0, kCluster, 5);
  const uint64_t host = image.host(0);
  image.zero(0, kCluster, false);
  EXPECT_EQ(image.host(0), host);
  EXPECT_EQ(image.zeros(0), kAll);
  EXPECT_EQ(image.allocated(0), 0u);
  image.write(kUnit, 1, 5);
  EXPECT_EQ(image.host(0), host);
  EXPECT_EQ(image.allocated(0), 2u);
  image.discard(0, kCluster);
  EXPECT_EQ(image.host(0), 0u);
}

TEST(SubclustersTest, ADiscardOverABackingImageHidesIt) {
  Extended image(kSize.value());
  image.write(0, 4 * kUnit, 5);
  image.discard(0, 8 * kUnit);
  EXPECT_EQ(image.zeros(0), 0xffu);  // what was never here too
  EXPECT_EQ(image.host(0), 0u);
  image.expect(0, 8 * kUnit, 0);
  image.discard(5 * kCluster, kCluster);
  image.expect(5 * kCluster, kCluster, 0);
}

// A place that nobody has written to: the subclusters of a preallocated cluster.
TEST(SubclustersTest, APreallocatedPlaceIsFilled) {
  Extended image(kSize.value());
  image.write(0, kCluster, 5);
  image.write(kCluster, kCluster, 5);
  image.tables().set_bitmap(0, 0);
  image.tables().set_bitmap(1, 0);
  const uint64_t hosts[] = {image.host(0), image.host(1)};
  image.write(kCluster - kUnit - 5, 2 * kUnit, 6);
  EXPECT_EQ(image.allocated(0), 0xc0000000u);
  EXPECT_EQ(image.allocated(1), 1u);
  EXPECT_EQ(image.host(0), hosts[0]);
  EXPECT_EQ(image.host(1), hosts[1]);
  image.expect(kCluster - kUnit - 5, 2 * kUnit, 6);
  std::vector<std::byte> below(kUnit);
  image.stage().backing->peek(0, below);
  image.use([&](DeviceQueue& queue) { return expect_same(queue, 0, below); });
}

Task<void> write_two(DeviceQueue& queue) {
  auto one = [&queue](size_t i) {
    return write_stamped(queue, (5 + 5 * i) * kUnit + 100, 300, static_cast<uint8_t>(7 + i));
  };
  co_await when_all(2, one);
}

// Three guest clusters in one host cluster: shared, as with a snapshot.
void share_first_cluster(Extended& image) {
  DamagedTables& tables = image.tables();
  for (uint64_t guest : {0, 1, 2}) {
    tables.set_l2_entry(guest, image.host(0));
    tables.set_bitmap(guest, uint64_t{1} << 38 | 0x80000102);
  }
  tables.set_refcount(image.host(0), 3);
}

TEST(SubclustersTest, ASharedClusterIsCopiedWithItsBitmap) {
  Extended image(kSize.value());
  image.write(0, kCluster, 5);
  share_first_cluster(image);
  const uint64_t shared = image.host(0);
  image.write(3 * kUnit, kUnit, 6);
  EXPECT_NE(image.host(0), shared);
  EXPECT_EQ(image.host(1), shared);
  EXPECT_EQ(image.allocated(0), 0x8000010au);
  EXPECT_EQ(image.zeros(0), 1u << 6);
  EXPECT_EQ(image.allocated(1), 0x80000102u);
  for (uint64_t unit : {1, 8, 31}) image.expect(unit * kUnit, kUnit, 5);
  image.expect(3 * kUnit, kUnit, 6);
  image.expect(6 * kUnit, kUnit, 0);
  std::vector<std::byte> below(kUnit);
  image.stage().backing->peek(4 * kUnit, below);
  image.use([&](DeviceQueue& queue) { return expect_same(queue, 4 * kUnit, below); });
}

// Both lie in what is copied; neither may be done by the other's copy alone.
TEST(SubclustersTest, WritesThatMeetInASharedClusterAreBothThere) {
  Extended image(kSize.value());
  image.write(0, kCluster, 5);
  share_first_cluster(image);
  image.use([](DeviceQueue& queue) { return write_two(queue); });
  EXPECT_EQ(image.allocated(0), 0x80000522u | 1u << 8);
  image.expect(5 * kUnit + 100, 300, 7);
  image.expect(10 * kUnit + 100, 300, 8);
}

// --- damage --------------------------------------------------------------------------------------

struct BitmapDamage {
  const char* fault;
  void (*plant)(DamagedTables& tables);
  bool is_mended;
};

constexpr BitmapDamage kBitmapDamage[] = {
    {"data and zeros at once", [](DamagedTables& t) { t.set_bitmap(3, kAll | kAll << 32); }, false},
    {"data and zeros at once", [](DamagedTables& t) { t.set_bitmap(20, uint64_t{7} << 32 | 5); },
     true},
    {"allocated subclusters of no cluster", [](DamagedTables& t) { t.set_bitmap(20, 5); }, false},
    {"reserved bits set", [](DamagedTables& t) { t.set_l2_entry(3, t.l2_entry(3) | kReadsZero); },
     true},
    {"data cluster beyond the end of the file",
     [](DamagedTables& t) {
       t.set_l2_entry(20, kCopied | uint64_t{1} << 40);
       t.set_bitmap(20, 5);
     },
     true},
    {"preallocated cluster beyond the end of the file",
     [](DamagedTables& t) {
       t.set_l2_entry(20, kCopied | uint64_t{1} << 40);
       t.set_bitmap(20, uint64_t{6} << 32);
     },
     true},
    {"the COPIED flag of no cluster", [](DamagedTables& t) { t.set_l2_entry(20, kCopied); }, true},
    {"compressed data with a subcluster bitmap",
     [](DamagedTables& t) {
       t.set_l2_entry(3, kCompressed | t.host_of(3));
       t.set_bitmap(3, 1);
     },
     true},
};

TEST(SubclustersTest, DamagedBitmapsAreFoundAndMendedWhereNothingIsLost) {
  for (const BitmapDamage& damage : kBitmapDamage) {
    SCOPED_TRACE(damage.fault);
    DamagedImage image(extended_image());
    image.write({0, 1, 2, 3, 4, 5});
    ASSERT_EQ(all_lines(image.check()), "");
    DamagedTables tables = image.tables();
    damage.plant(tables);
    const CheckReport found = image.check();
    EXPECT_NE(found.corruptions, 0u);
    EXPECT_NE(all_lines(found).find(damage.fault), std::string::npos) << all_lines(found);
    const CheckReport repaired = image.check(CheckRepair::kAll);
    EXPECT_EQ(repaired.corruptions == 0, damage.is_mended) << all_lines(repaired);
    EXPECT_EQ(all_lines(image.check()).empty(), damage.is_mended);
    if (damage.is_mended) image.write({20, 3});
  }
}

// Subclusters that are data and zeros at once are zeros where nothing else stands in the cluster;
// one that holds something stays what it is, and is told of.
TEST(SubclustersTest, DataAndZerosAtOnceAreZerosWhereTheDataAre) {
  Extended extended;
  extended.write(0, kCluster, 5);
  const std::vector<std::byte> zeros(2 * kUnit);
  const uint64_t cluster_at = extended.tables().host_of(0);
  extended.stage().disk.poke(cluster_at + 4 * kUnit, zeros);
  const uint64_t both = uint64_t{0x30} << 32;
  extended.tables().set_bitmap(0, kAll | both);
  auto repair = [&](Shard&) {
    CheckOptions options;
    options.repair = CheckRepair::kAll;
    return check_storage(extended.stage().world.world(), extended.stage().storage(), options);
  };
  const Result<CheckReport> mended = extended.stage().world.run(repair);
  ASSERT_TRUE(mended.ok());
  EXPECT_EQ(mended.value().corruptions, 0u) << all_lines(mended.value());
  EXPECT_EQ(mended.value().corruptions_fixed, 1u);
  EXPECT_EQ(extended.tables().bitmap(0), (kAll & ~uint64_t{0x30}) | both);
  extended.expect(0, 4 * kUnit, 5);
  // Now one of two holds something.
  extended.tables().set_bitmap(0, kAll | both | uint64_t{1} << 32);
  const Result<CheckReport> left = extended.stage().world.run(repair);
  ASSERT_TRUE(left.ok());
  EXPECT_EQ(left.value().corruptions, 1u) << all_lines(left.value());
  EXPECT_EQ(extended.tables().bitmap(0), (kAll & ~uint64_t{0x30}) | both | uint64_t{1} << 32);
}

// There zero bytes are the cipher of something else.
TEST(SubclustersTest, ZeroBytesInAnEncryptedFileSayNothing) {
  TestImage encrypted = extended_image();
  encrypted.is_encrypted = true;
  DamagedImage image(encrypted);
  image.write({0, 1});
  ASSERT_EQ(all_lines(image.check()), "");
  DamagedTables tables = image.tables();
  const std::vector<std::byte> zeros(2 * kUnit);
  image.disk().poke(tables.host_of(0) + 4 * kUnit, zeros);
  const uint64_t both = kAll | uint64_t{0x30} << 32;
  tables.set_bitmap(0, both);
  const CheckReport repaired = image.check(CheckRepair::kAll);
  EXPECT_EQ(repaired.corruptions, 1u) << all_lines(repaired);
  EXPECT_EQ(tables.bitmap(0), both);
}

// What is lost with the cluster are zeros already; what was unallocated stays so.
TEST(SubclustersTest, AMendedEntryKeepsWhatItsBitmapSays) {
  DamagedImage image(extended_image());
  image.write({0, 1, 2});
  DamagedTables tables = image.tables();
  tables.set_l2_entry(20, kCopied | uint64_t{1} << 40);
  tables.set_bitmap(20, uint64_t{6} << 32 | 9);
  image.check(CheckRepair::kAll);
  EXPECT_EQ(tables.l2_entry(20), 0u);
  EXPECT_EQ(tables.bitmap(20), uint64_t{0xf} << 32);
  // COPIED and refcounts are mended beside a bitmap that nobody touches.
  tables.set_bitmap(1, uint64_t{1} << 32 | 0xf0);
  tables.set_l2_entry(1, tables.host_of(1));
  tables.set_refcount(tables.host_of(2), 3);
  const CheckReport repaired = image.check(CheckRepair::kAll);
  EXPECT_EQ(repaired.corruptions + repaired.leaks, 0u) << all_lines(repaired);
  EXPECT_EQ(tables.bitmap(1), uint64_t{1} << 32 | 0xf0);
  EXPECT_EQ(tables.l2_entry(1), kCopied | tables.host_of(1));
}

TEST(SubclustersTest, ADamagedEntryIsReportedAndNothingIsWrittenNearIt) {
  Extended image;
  image.write(0, kCluster, 5);
  image.tables().set_bitmap(0, kAll | uint64_t{1} << 35);
  auto read = [](DeviceQueue& queue) { return expect_stamped(queue, 0, 512, 5); };
  const Result<void> refused = image.stage().use(read, true);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(image.stage().text_of(refused).find("L2 entry 0"), std::string::npos)
      << image.stage().text_of(refused);
  auto write = [](DeviceQueue& queue) { return write_stamped(queue, 4 * kUnit, 512, 6); };
  EXPECT_FALSE(image.stage().use(write).ok());
  EXPECT_EQ(image.tables().bitmap(0), kAll | uint64_t{1} << 35);
}

}  // namespace
}  // namespace ringdisk::qcow2
