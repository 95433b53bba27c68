// SPDX-License-Identifier: Apache-2.0
// Images whose header or snapshot table is damaged: what a check tells and mends, and what a writer
// keeps away from.
#include <gtest/gtest.h>

#include "qcow2/check/incomplete_snapshots_test.h"

namespace ringdisk::qcow2 {
namespace {

std::string refusal_to_write(DamagedImage& image, std::vector<uint64_t> guest_clusters) {
  auto work = [&](Shard&) {
    image.world().diagnostics().add_node("disk.qcow2");  // the storage's id, if it is the first
    return write_clusters(image.world().world(), image.image(), image.storage(), guest_clusters);
  };
  const Result<void> written = image.world().run(work);
  return written.ok() ? "" : image.world().diagnostics().describe(written.error());
}

TEST(DamagedHeaderTest, AnImageWithoutARefcountTableIsGivenOne) {
  DamagedImage image;
  image.write(kDamagedClusters);
  const std::vector<std::byte> disk = image.content();
  image.tables().put(56, 0);  // clusters of the refcount table, and no snapshots
  EXPECT_NE(refusal_to_write(image, {11}).find("without a refcount table; run 'ringdisk check -r"),
            std::string::npos);
  EXPECT_NE(image.check().corruptions, 0u);
  const CheckReport report = image.check(CheckRepair::kAll);
  EXPECT_EQ(report.corruptions + report.leaks, 0u) << all_lines(report);
  EXPECT_TRUE(image.content() == disk);
  image.write({11});
  EXPECT_EQ(all_lines(image.check()), "");
}

TEST(DamagedHeaderTest, ASnapshotTableWithMoreExtraDataThanProgramsTakeIsCut) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  plant_incomplete_snapshots(tables);
  std::vector<Snapshot> before = snapshots_of(image);
  for (Snapshot& one : before) {
    one.disk_size = 4 << 20;
    one.instruction_count = 7;
  }
  put_snapshots(tables, tables.snapshot_table(), before, {24, kSnapshotExtraBytesMax + 1, 24});
  EXPECT_EQ(image.check().corruptions, 1u);
  const CheckReport report = image.check(CheckRepair::kAll);
  EXPECT_EQ(report.corruptions_fixed, 1u) << all_lines(report);
  EXPECT_EQ(report.corruptions, 0u);
  expect_same_but_complete(snapshots_of(image), before, 4 << 20);
  for (const Snapshot& one : snapshots_of(image)) EXPECT_FALSE(one.has_too_much());
}

TEST(DamagedHeaderTest, TheLastClusterOfAFileReadsAsZerosBehindItsEnd) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  plant_incomplete_snapshots(tables);
  std::vector<Snapshot> snapshots = snapshots_of(image);
  snapshots.resize(1);
  const uint64_t at = tables.end();
  put_snapshots(tables, at, snapshots, {24});
  constexpr uint16_t kNameLength = 200;
  std::byte length[2];
  store_be16(length, kNameLength);
  tables.poke(at + 14, length);
  ASSERT_LT(image.disk().size(), at + kNameLength);
  const std::vector<Snapshot> after = snapshots_of(image);
  ASSERT_EQ(after.size(), 1u);
  EXPECT_EQ(after[0].id, snapshots[0].id);
  EXPECT_EQ(after[0].name.size(), kNameLength);
  EXPECT_EQ(after[0].name.substr(0, snapshots[0].name.size()), snapshots[0].name);
}

TEST(DamagedHeaderTest, ASnapshotsHugeL1TableIsToldAndTheRestIsChecked) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  plant_incomplete_snapshots(tables);
  std::vector<Snapshot> snapshots = snapshots_of(image);
  snapshots[1].l1_size = 1 << 28;
  put_snapshots(tables, tables.snapshot_table(), snapshots, {24, 24, 24});
  tables.set_refcount(tables.host_of(3), 0);
  const CheckReport report = image.check();
  EXPECT_NE(all_lines(report).find("L1 table is too large"), std::string::npos);
  EXPECT_EQ(report.corruptions, 3u) << all_lines(report);  // and a refcount, and its COPIED flag
}

// A table of two clusters and the L1 tables of its snapshots, all of which count as free.
TEST(DamagedHeaderTest, SnapshotsAreNotOverwrittenWhateverTheirRefcountsSay) {
  TestImage tiny;
  tiny.cluster_bits = 9;
  DamagedImage image(tiny, ByteCount(64 << 10));
  image.write({0});
  DamagedTables tables = image.tables();
  std::vector<Snapshot> snapshots(12);
  for (Snapshot& one : snapshots) {
    one.l1_table = HostOffset(tables.add_cluster(0));
    one.l1_size = static_cast<uint32_t>(tables.get(36) >> 32);
    one.id = std::to_string(&one - snapshots.data());
    one.name = "name";
    one.disk_size = 64 << 10;
  }
  const uint64_t table = tables.add_cluster(0);
  tables.add_cluster(0);
  put_snapshots(tables, table, snapshots, std::vector<uint32_t>(snapshots.size(), 24));
  const std::vector<std::byte> first = tables.cluster_at(table);
  const std::vector<std::byte> second = tables.cluster_at(table + 512);
  const std::vector<std::byte> l1 = tables.cluster_at(snapshots[0].l1_table.value());
  EXPECT_NE(refusal_to_write(image, {1}).find("counts as free but is in use"), std::string::npos);
  EXPECT_EQ(tables.get(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
  EXPECT_TRUE(tables.cluster_at(table) == first);
  EXPECT_TRUE(tables.cluster_at(table + 512) == second);
  EXPECT_TRUE(tables.cluster_at(snapshots[0].l1_table.value()) == l1);
}

}  // namespace
}  // namespace ringdisk::qcow2
