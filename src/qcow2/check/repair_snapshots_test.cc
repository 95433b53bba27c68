// SPDX-License-Identifier: Apache-2.0
// Snapshot tables whose entries lack what version 3 asks for: found, and mended so that every
// snapshot is what it was. Power cuts and failing requests on the way: repair_test.cc, which has
// such images among its damage.
#include <gtest/gtest.h>

#include "qcow2/check/incomplete_snapshots_test.h"
#include "qcow2/edit/edit_fixture_test.h"
#include "qcow2/edit/snapshots.h"

namespace ringdisk::qcow2 {
namespace {

Content content_of_snapshot(DamagedImage& image, const std::string& name) {
  auto read = [&](Shard&) { return read_content(image.world().world(), image.storage(), name); };
  Result<Content> content = image.world().run(read);
  EXPECT_TRUE(content.ok()) << image.world().diagnostics().describe(content.error());
  return content.ok() ? std::move(content).value() : Content();
}

Task<void> create_snapshot(const World& world, std::unique_ptr<SharedStorage> storage,
                           const std::string& name) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  SnapshotEdit edit;
  edit.action = SnapshotEdit::Action::kCreate;
  edit.name = name;
  edit.date_seconds = 1'700'000'000;
  co_await edit_snapshots(graph, std::move(storage), std::move(edit));
}

constexpr const char* kTwoIncomplete =
    "ERROR snapshot table entry 0 is incomplete\n"
    "ERROR snapshot table entry 2 is incomplete\n";

TEST(RepairSnapshotsTest, AnEntryWithoutItsFieldsIsACorruptionInVersion3Alone) {
  for (const uint32_t version : {2u, 3u}) {
    TestImage test_image;
    test_image.version = version;
    DamagedImage image(test_image);
    image.write(kDamagedClusters);
    DamagedTables tables = image.tables();
    plant_incomplete_snapshots(tables);
    const CheckReport report = image.check();
    EXPECT_EQ(report.corruptions, version == 3 ? 2u : 0u);
    EXPECT_EQ(report.leaks, 0u);
    EXPECT_EQ(all_lines(report), version == 3 ? kTwoIncomplete : "");
    const uint64_t table = tables.snapshot_table();
    image.check(CheckRepair::kAll);
    EXPECT_EQ(tables.snapshot_table() == table, version == 2);
  }
}

TEST(RepairSnapshotsTest, TheNewTableSaysWhatTheOldOneSaid) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  plant_incomplete_snapshots(tables);
  const std::vector<Snapshot> before = snapshots_of(image);
  const uint64_t table = tables.snapshot_table();
  const CheckReport report = image.check(CheckRepair::kAll);
  EXPECT_EQ(all_lines(report),
            "Repairing snapshot table entry 0 is incomplete\n"
            "Repairing snapshot table entry 2 is incomplete\n");
  EXPECT_EQ(report.corruptions_fixed, 2u);
  EXPECT_EQ(report.leaks_fixed, 0u);
  EXPECT_EQ(report.corruptions + report.leaks, 0u);
  EXPECT_EQ(tables.refcount(table), 0u);
  EXPECT_EQ(tables.refcount(tables.snapshot_table()), 1u);
  EXPECT_EQ(tables.get(kIncompatibleFeaturesAt), 0u);
  expect_same_but_complete(snapshots_of(image), before, 4 << 20);
}

TEST(RepairSnapshotsTest, SnapshotsReadTheSameAfterwards) {
  DamagedImage image;
  const std::vector<std::string> names = {"one", "two"};
  std::vector<Content> contents;
  for (size_t i = 0; i < names.size(); ++i) {
    image.write({i, i + 1, i + 5, 600 + i});
    auto create = [&](Shard&) {
      return create_snapshot(image.world().world(), image.storage(), names[i]);
    };
    ASSERT_TRUE(image.world().run(create).ok());
    contents.push_back(content_of_snapshot(image, names[i]));
  }
  image.write({9, 10});
  DamagedTables tables = image.tables();
  std::vector<Snapshot> snapshots = snapshots_of(image);
  snapshots[0].vm_state_size = 4096;
  put_snapshots(tables, tables.snapshot_table(), snapshots, {0, 15});
  tables.set_refcount(tables.host_of(9), 0);
  const std::vector<std::byte> disk = image.content();
  // Two entries, a refcount, and the COPIED flag that contradicts it.
  EXPECT_EQ(image.check().corruptions, 4u);
  const CheckReport report = image.check(CheckRepair::kAll);
  EXPECT_EQ(report.corruptions_fixed, 3u) << all_lines(report);
  EXPECT_EQ(all_lines(image.check()), "");
  EXPECT_TRUE(image.content() == disk);
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_TRUE(content_of_snapshot(image, names[i]) == contents[i]) << names[i];
  }
  expect_same_but_complete(snapshots_of(image), snapshots, 4 << 20);
}

TEST(RepairSnapshotsTest, RepairingLeaksLeavesTheTableAndMendsFlagsAllTheSame) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  plant_incomplete_snapshots(tables);
  const uint64_t leaked = tables.add_cluster(1);
  tables.set_l2_entry(4, tables.host_of(4));
  const uint64_t table = tables.snapshot_table();
  const std::vector<std::byte> bytes = tables.cluster_at(table);
  const CheckReport report = image.check(CheckRepair::kLeaks);
  EXPECT_EQ(report.corruptions, 2u) << all_lines(report);
  EXPECT_EQ(report.corruptions_fixed, 1u);
  EXPECT_EQ(report.leaks_fixed, 1u);
  EXPECT_EQ(tables.refcount(leaked), 0u);
  EXPECT_NE(tables.l2_entry(4) & kCopied, 0u);
  EXPECT_EQ(tables.snapshot_table(), table);
  EXPECT_EQ(tables.cluster_at(table), bytes);
  EXPECT_EQ(all_lines(image.check()), kTwoIncomplete);
}

TEST(RepairSnapshotsTest, WithALostPointerNoTableIsPutWhereItMayPoint) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  plant_incomplete_snapshots(tables);
  const uint64_t table = tables.snapshot_table();
  tables.put(tables.l1_table() + 8, kCopied | tables.end());
  const uint64_t size = image.disk().size();
  const CheckReport report = image.check(CheckRepair::kAll);
  EXPECT_GE(report.corruptions, 3u);
  EXPECT_EQ(tables.snapshot_table(), table);
  EXPECT_EQ(image.disk().size(), size);
}

TEST(RepairSnapshotsTest, WithoutARefcountBlockForTheNewTableRefcountsAreRebuilt) {
  for (const uint64_t memory_max : {uint64_t{0}, uint64_t{64 << 20}}) {
    DamagedImage image;
    image.write(kDamagedClusters);
    DamagedTables tables = image.tables();
    plant_incomplete_snapshots_before_block_end(tables);
    ASSERT_EQ(tables.refcount_block(1), 0u);
    ASSERT_EQ(tables.end(), 2048u * 4096);
    const std::vector<Snapshot> before = snapshots_of(image);
    const CheckReport report = image.check(CheckRepair::kAll, memory_max);
    EXPECT_EQ(report.corruptions + report.leaks, 0u) << all_lines(report);
    EXPECT_EQ(tables.snapshot_table(), 2048u * 4096);
    EXPECT_NE(tables.refcount_block(1), 0u);
    EXPECT_EQ(all_lines(image.check()), "");
    expect_same_but_complete(snapshots_of(image), before, 4 << 20);
  }
}

TEST(RepairSnapshotsTest, ATableOfManyClustersIsMovedAsAWhole) {
  TestImage tiny;
  tiny.cluster_bits = 9;
  DamagedImage image(tiny, ByteCount(64 << 10));
  image.write({0, 1, 70});
  DamagedTables tables = image.tables();
  std::vector<Snapshot> snapshots(20);
  for (Snapshot& one : snapshots) {
    one.l1_table = HostOffset(tables.add_cluster(1));
    one.l1_size = static_cast<uint32_t>(tables.get(36) >> 32);
    one.id = std::to_string(&one - snapshots.data());
    one.name = "name";
  }
  constexpr uint64_t kClusters = 2;  // of old entries, 48 bytes each; of new ones, 64 bytes: 3
  const uint64_t old = tables.add_cluster(1);
  for (uint64_t i = 1; i < kClusters; ++i) tables.add_cluster(1);
  put_snapshots(tables, old, snapshots, std::vector<uint32_t>(snapshots.size(), 0));
  EXPECT_EQ(image.check().corruptions, snapshots.size());
  EXPECT_EQ(image.check().leaks, 0u);
  const CheckReport report = image.check(CheckRepair::kAll, 0);
  EXPECT_EQ(report.corruptions_fixed, snapshots.size());
  EXPECT_EQ(report.corruptions + report.leaks, 0u) << all_lines(report);
  for (uint64_t i = 0; i < kClusters; ++i) EXPECT_EQ(tables.refcount(old + i * 512), 0u);
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(tables.refcount(tables.snapshot_table() + i * 512), 1u);
  }
  expect_same_but_complete(snapshots_of(image), snapshots, 64 << 10);
}

TEST(RepairSnapshotsTest, WithoutSpaceTheTableStaysAndTheRestIsMended) {
  for (const uint64_t spare_clusters : {0, 1}) {
    DamagedImage image;
    image.write(kDamagedClusters);
    DamagedTables tables = image.tables();
    plant_incomplete_snapshots(tables);
    tables.set_refcount(tables.host_of(3), 0);
    std::vector<std::byte> bytes(tables.end() + spare_clusters * 4096);
    image.disk().peek(0, MutableBytes(bytes).first(image.disk().size()));
    sim::SimDisk device(sim::SimDiskOptions::block_device(ByteCount(bytes.size()), 512), 1);
    device.poke(0, bytes);
    auto repair = [&](Shard&) {
      CheckOptions options;
      options.repair = CheckRepair::kAll;
      return check_storage(image.world().world(), storage_on(device), options);
    };
    Result<CheckReport> report = image.world().run(repair);
    ASSERT_TRUE(report.ok()) << image.world().diagnostics().describe(report.error());
    EXPECT_EQ(report.value().corruptions, spare_clusters == 0 ? 2u : 0u);
    EXPECT_EQ(report.value().leaks, 0u);
    const std::string lines = all_lines(report.value());
    const bool is_explained =
        lines.find("ERROR a new snapshot table has no space behind the image") != std::string::npos;
    EXPECT_EQ(is_explained, spare_clusters == 0) << lines;
    EXPECT_EQ(DamagedTables(device, image.image()).refcount(tables.host_of(3)), 1u);
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
