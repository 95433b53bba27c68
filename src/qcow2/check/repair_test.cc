// SPDX-License-Identifier: Apache-2.0
// Repair of planted damage, one kind at a time: what is found, what is mended, what is left alone,
// in how much memory, and with the power or a request failing on the way.
#include <gtest/gtest.h>

#include <algorithm>

#include "qcow2/check/damaged_image_test.h"
#include "qcow2/check/incomplete_snapshots_test.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"

namespace ringdisk::qcow2 {

std::vector<PlantedDamage> repairable_damage() {
  using T = DamagedTables;
  return {
      {"a cluster nobody points to", [](T& t) { t.add_cluster(1); }},
      {"a refcount too high", [](T& t) { t.set_refcount(t.host_of(3), 4); }},
      {"a refcount of zero", [](T& t) { t.set_refcount(t.host_of(3), 0); }},
      {"a table whose refcount is zero", [](T& t) { t.set_refcount(t.l2_table(600), 0); }},
      {"a header whose refcount is zero", [](T& t) { t.set_refcount(0, 0); }},
      {"a missing COPIED flag", [](T& t) { t.set_l2_entry(4, t.host_of(4)); }},
      {"a missing COPIED flag of a table", [](T& t) { t.put(t.l1_table(), t.l2_table(0)); }},
      {"two guest clusters in one", [](T& t) { t.set_l2_entry(5, t.l2_entry(6)); }},
      {"a pointer that is gone", [](T& t) { t.set_l2_entry(5, 0); }},
      {"no refcount block", [](T& t) { t.put(t.refcount_table(), 0); }},
      {"a refcount block that is not aligned",
       [](T& t) { t.put(t.refcount_table(), t.refcount_block(0) + 512); }},
      {"a refcount block with reserved bits",
       [](T& t) { t.put(t.refcount_table(), t.refcount_block(0) + 1); }},
      {"a refcount block beyond the end", [](T& t) { t.put(t.refcount_table(), 1 << 30); }},
      {"one block twice", [](T& t) { t.put(t.refcount_table() + 8, t.refcount_block(0)); }},
      {"a refcount block in a guest's cluster",
       [](T& t) { t.put(t.refcount_table() + 8, t.host_of(2)); }},
      {"a refcount block in a table", [](T& t) { t.put(t.refcount_table() + 8, t.l2_table(0)); }},
      {"a refcount block in the refcount table",
       [](T& t) { t.put(t.refcount_table() + 8, t.refcount_table()); }},
      {"data beyond the end", [](T& t) { t.set_l2_entry(20, kCopied | uint64_t{1} << 40); }},
      {"preallocated zeros that are not aligned",
       [](T& t) { t.set_l2_entry(20, (t.host_of(4) + 512) | kReadsZero); }, false},
      {"preallocated zeros beyond the end",
       [](T& t) { t.set_l2_entry(20, kCopied | uint64_t{1} << 40 | kReadsZero); }},
      {"the COPIED flag of nothing", [](T& t) { t.set_l2_entry(20, kCopied); }, false},
      {"reserved bits", [](T& t) { t.set_l2_entry(4, t.l2_entry(4) | 1 << 5); }, false},
      {"reserved bits of a table's entry",
       [](T& t) { t.put(t.l1_table(), t.get(t.l1_table()) | 1); }, false},
      {"a guest cluster in the L1 table", [](T& t) { t.set_l2_entry(20, kCopied | t.l1_table()); },
       false},
      {"a guest cluster in an L2 table",
       [](T& t) { t.set_l2_entry(20, kCopied | t.l2_table(600)); }, false},
      {"a guest cluster in the refcount table",
       [](T& t) { t.set_l2_entry(20, t.refcount_table()); }, false},
      {"a guest cluster in a refcount block",
       [](T& t) { t.set_l2_entry(20, kCopied | t.refcount_block(0)); }, false},
      {"the dirty bit over wrong refcounts",
       [](T& t) {
         t.set_refcount(t.host_of(7), 0);
         t.put(kIncompatibleFeaturesAt, kIncompatibleDirty);
       }},
      {"incomplete snapshots", &plant_incomplete_snapshots},
      {"an incomplete snapshot of what is not counted", &plant_incomplete_shared_snapshot},
      {"incomplete snapshots, and no refcount block behind them",
       &plant_incomplete_snapshots_before_block_end},
      {"the corrupt bit, and a leak",
       [](T& t) {
         t.set_refcount(t.host_of(7), 2);
         t.put(kIncompatibleFeaturesAt, kIncompatibleCorrupt);
       }},
  };
}

namespace {

TEST(RepairTest, EveryRepairableDamageIsFoundAndRepaired) {
  for (const PlantedDamage& damage : repairable_damage()) {
    SCOPED_TRACE(damage.name);
    DamagedImage image;
    image.write(kDamagedClusters);
    ASSERT_EQ(all_lines(image.check()), "");
    DamagedTables tables = image.tables();
    damage.plant(tables);
    const CheckReport before = image.check();
    EXPECT_NE(before.corruptions + before.leaks, 0u);
    EXPECT_EQ(before.corruptions_fixed + before.leaks_fixed, 0u);
    std::vector<std::byte> content;
    if (damage.keeps_content) content = image.content();
    const CheckReport repaired = image.check(CheckRepair::kAll);
    EXPECT_EQ(repaired.corruptions + repaired.leaks, 0u) << all_lines(repaired);
    EXPECT_NE(repaired.corruptions_fixed + repaired.leaks_fixed, 0u) << all_lines(repaired);
    EXPECT_EQ(all_lines(image.check()), "");
    EXPECT_EQ(image.tables().get(kIncompatibleFeaturesAt), 0u);
    if (damage.keeps_content) {
      EXPECT_TRUE(image.content() == content) << "a guest reads something else than before";
    }
    // It can be written to, and stays sound.
    image.write({30, 2, 700});
    EXPECT_EQ(all_lines(image.check()), "");
  }
}

TEST(RepairTest, WhatCanBeUnderstoodSurvivesARepair) {
  for (const PlantedDamage& damage : repairable_damage()) {
    SCOPED_TRACE(damage.name);
    DamagedImage image;
    image.write(kDamagedClusters);
    const std::vector<std::byte> sound = image.content();
    DamagedTables tables = image.tables();
    damage.plant(tables);
    image.check(CheckRepair::kAll);
    const std::vector<std::byte> after = image.content();
    ASSERT_EQ(after.size(), sound.size());
    for (uint64_t cluster : {0, 1, 2, 3, 4, 6, 7, 8, 9, 600}) {
      EXPECT_TRUE(
          std::equal(&after[cluster * 4096], &after[cluster * 4096] + 4096, &sound[cluster * 4096]))
          << "guest cluster " << cluster;
    }
  }
}

TEST(RepairTest, AWrongFlagOfASharedClusterIsCleared) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  tables.set_l2_entry(5, tables.l2_entry(6));
  image.check(CheckRepair::kAll);
  EXPECT_EQ(tables.refcount(tables.host_of(6)), 2u);
  EXPECT_EQ(tables.l2_entry(6) & kCopied, 0u);
  EXPECT_EQ(tables.l2_entry(5), tables.l2_entry(6));
}

TEST(RepairTest, WithALostPointerLeaksAreKept) {
  for (CheckRepair repair : {CheckRepair::kLeaks, CheckRepair::kAll}) {
    DamagedImage image;
    image.write(kDamagedClusters);
    image.write({601, 602});
    DamagedTables tables = image.tables();
    const uint64_t lost = tables.l2_table(600);
    const uint64_t host = tables.host_of(602);
    tables.put(tables.l1_table() + 8, kCopied | (lost + 1024));
    ASSERT_EQ(tables.refcount(host), 1u);
    const CheckReport report = image.check(repair);
    EXPECT_NE(report.corruptions, 0u);
    EXPECT_NE(report.leaks, 0u);
    EXPECT_EQ(tables.refcount(host), 1u);
    EXPECT_EQ(tables.get(tables.l1_table() + 8), kCopied | (lost + 1024));
  }
}

TEST(RepairTest, WithALostPointerRefcountTablesAreNotBuiltWhereItMayPoint) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  tables.put(tables.l1_table() + 8, kCopied | tables.end());
  tables.put(tables.refcount_table(), 0);
  const uint64_t size = image.disk().size();
  EXPECT_NE(image.check(CheckRepair::kAll).corruptions, 0u);
  EXPECT_EQ(image.disk().size(), size);
}

TEST(RepairTest, ATableWithAnEntryNobodyUnderstandsIsNotWritten) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  tables.set_l2_entry(20, kCopied | (tables.host_of(4) + 512));  // lost
  tables.set_l2_entry(21, kCopied);                              // could be mended
  const std::vector<std::byte> before = tables.cluster_at(tables.l2_table(0));
  const CheckReport report = image.check(CheckRepair::kAll);
  EXPECT_NE(report.corruptions, 0u);
  EXPECT_EQ(tables.cluster_at(tables.l2_table(0)), before);
  EXPECT_EQ(tables.get(kIncompatibleFeaturesAt), 0u);
}

// What an L1 entry calls a table may be what a guest has written: its words look like entries with
// reserved bits, or beyond the end of the file, which are mended elsewhere.
TEST(RepairTest, GuestDataThatAnL1EntryCallsATableIsNotWritten) {
  DamagedImage image;
  image.write({0, 1, 2, 3, 4});
  DamagedTables tables = image.tables();
  const uint64_t host = tables.host_of(3);
  const std::vector<std::byte> data = tables.cluster_at(host);
  tables.put(tables.l1_table() + 8, host);
  for (int run = 0; run < 2; ++run) {
    CheckReport report = image.check(CheckRepair::kAll);
    EXPECT_NE(report.corruptions, 0u) << all_lines(report);
    EXPECT_TRUE(tables.cluster_at(host) == data) << all_lines(report);
    EXPECT_EQ(tables.host_of(3), host);
  }
}

TEST(RepairTest, ATableThatCallsItselfDataIsMendedInOneRun) {
  DamagedImage image;
  image.write({0, 1, 2, 3, 4});
  DamagedTables tables = image.tables();
  tables.set_l2_entry(2, tables.l2_table(0) | kCopied);
  tables.set_l2_entry(4, tables.l2_entry(4) | 4);  // a reserved bit
  image.check(CheckRepair::kAll);
  CheckReport again = image.check();
  EXPECT_EQ(again.corruptions + again.leaks, 0u) << all_lines(again);
  EXPECT_EQ(tables.l2_entry(2), kReadsZero);
}

TEST(RepairTest, TheCorruptBitStaysWhileSomethingIsWrong) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  tables.set_l2_entry(20, kCopied | (tables.host_of(4) + 512));
  tables.put(kIncompatibleFeaturesAt, kIncompatibleCorrupt);
  image.check(CheckRepair::kAll);
  EXPECT_EQ(tables.get(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
  tables.set_l2_entry(20, 0);
  image.check(CheckRepair::kAll);
  EXPECT_EQ(tables.get(kIncompatibleFeaturesAt), 0u);
}

TEST(RepairTest, RepairingLeaksChangesNothingElse) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  const uint64_t leaked = tables.add_cluster(1);
  tables.set_refcount(tables.host_of(3), 2);
  tables.set_l2_entry(5, tables.l2_entry(6));  // too low
  const uint64_t entry = tables.l2_entry(6);
  const CheckReport report = image.check(CheckRepair::kLeaks);
  EXPECT_EQ(report.leaks, 0u);
  EXPECT_NE(report.leaks_fixed, 0u);
  EXPECT_NE(report.corruptions, 0u);
  EXPECT_EQ(tables.refcount(leaked), 0u);
  EXPECT_EQ(tables.refcount(tables.host_of(3)), 1u);
  EXPECT_EQ(tables.refcount(tables.host_of(6)), 1u);
  EXPECT_EQ(tables.l2_entry(6), entry);
}

TEST(RepairTest, RepairingLeaksDoesNotRebuildRefcounts) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  tables.put(tables.refcount_table(), 0);
  const uint64_t size = image.disk().size();
  const CheckReport report = image.check(CheckRepair::kLeaks);
  EXPECT_EQ(report.check_errors, 1u);
  EXPECT_EQ(image.disk().size(), size);
}

TEST(RepairTest, Version2HasNoZerosToPutInPlaceOfData) {
  TestImage old;
  old.version = 2;
  DamagedImage image(old);
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  tables.set_l2_entry(20, kCopied | uint64_t{1} << 40);
  tables.set_refcount(tables.host_of(3), 0);
  const CheckReport report = image.check(CheckRepair::kAll);
  EXPECT_EQ(report.corruptions, 0u) << all_lines(report);
  EXPECT_EQ(tables.l2_entry(20), 0u);
}

TEST(RepairTest, AReferenceThatDoesNotFitItsRefcountStaysACorruption) {
  TestImage narrow;
  narrow.refcount_order = 0;
  DamagedImage image(narrow);
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  tables.set_l2_entry(5, tables.l2_entry(6));
  const CheckReport report = image.check(CheckRepair::kAll);
  EXPECT_NE(report.corruptions, 0u);
  EXPECT_EQ(image.check().corruptions, report.corruptions);
}

// --- memory

TestImage tiny_clusters() {
  TestImage image;
  image.cluster_bits = 9;
  image.refcount_order = 6;  // 64 clusters a block
  image.refcount_table_clusters = 2;
  return image;
}

TEST(RepairTest, AnImageLargerThanTheMemoryForItIsGoneOverInWindows) {
  const std::vector<uint64_t> many = {0, 1, 2, 3, 64, 65, 130, 300, 301, 400, 500, 511};
  for (const bool rebuild : {false, true}) {
    DamagedImage image(tiny_clusters(), ByteCount(256 << 10));
    image.write(many);
    for (uint64_t i = 100; i < 290; ++i) image.write({i});
    ASSERT_EQ(all_lines(image.check(CheckRepair::kNone, 0)), "");
    DamagedTables tables = image.tables();
    ASSERT_GT(tables.end(), 3u * 64 * 512) << "several windows";
    tables.set_l2_entry(1, tables.l2_entry(289));
    tables.set_refcount(tables.host_of(289), 0);
    tables.set_refcount(tables.host_of(300), 3);
    tables.set_l2_entry(131, tables.l1_table());
    tables.set_l2_entry(132, kCopied | uint64_t{1} << 40);
    if (rebuild) tables.put(tables.refcount_table() + 8, 0);
    const CheckReport at_once = image.check();
    const CheckReport in_windows = image.check(CheckRepair::kNone, 0);
    EXPECT_EQ(in_windows.messages, at_once.messages);
    EXPECT_EQ(in_windows.corruptions, at_once.corruptions);
    EXPECT_EQ(in_windows.leaks, at_once.leaks);
    EXPECT_EQ(in_windows.allocated_clusters, at_once.allocated_clusters);
    EXPECT_EQ(in_windows.fragmented_clusters, at_once.fragmented_clusters);
    EXPECT_EQ(in_windows.image_end_offset, at_once.image_end_offset);
    const CheckReport repaired = image.check(CheckRepair::kAll, 0);
    EXPECT_EQ(repaired.corruptions + repaired.leaks, 0u) << all_lines(repaired);
    EXPECT_EQ(all_lines(image.check()), "");
  }
}

TEST(RepairTest, ReferencesByTheThousandAreCounted) {
  DamagedImage image(tiny_clusters(), ByteCount(4 << 20));
  for (uint64_t guest = 0; guest < 8192; guest += 64) image.write({guest});
  DamagedTables tables = image.tables();
  const uint64_t host = tables.host_of(0);
  for (uint64_t guest = 0; guest < 8192; ++guest) {
    if (guest % 64 != 0 || guest == 0) tables.set_l2_entry(guest, host);
  }
  const CheckReport report = image.check(CheckRepair::kAll);
  EXPECT_EQ(report.corruptions + report.leaks, 0u) << all_lines(report);
  EXPECT_EQ(tables.refcount(host), 8192u - 127);
  tables.set_refcount(host, 8192 - 128);
  EXPECT_EQ(image.check().corruptions, 1u);
  EXPECT_EQ(image.check(CheckRepair::kNone, 0).corruptions, 1u);
}

TEST(RepairTest, ACancelledCheckSaysSo) {
  DamagedImage image;
  image.write(kDamagedClusters);
  CancelSource stop;
  stop.cancel();
  CheckOptions options;
  auto work = [&](Shard&) {
    return check_storage(image.world().world(), image.storage(), options, stop.token());
  };
  Result<CheckReport> report = image.world().run(work);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().kind, ErrorKind::kCancelled);
}

// --- failures on the way

// The bytes of a damaged image, what a guest reads of it, and its snapshots.
struct Patient {
  std::vector<std::byte> bytes;
  std::vector<std::byte> content;
  std::vector<Snapshot> snapshots;
  std::vector<std::string> hazards;
};

// What could cost a guest its data: all but leaks and flags, which follow refcounts.
std::vector<std::string> hazards_of(const CheckReport& report) {
  std::vector<std::string> hazards = report.messages;
  std::erase_if(hazards, [](const std::string& line) {
    return !line.starts_with("ERROR") || line.find("OFLAG_COPIED") != std::string::npos;
  });
  std::ranges::sort(hazards);
  return hazards;
}

Patient patient_with(const PlantedDamage& damage) {
  DamagedImage image;
  image.write(kDamagedClusters);
  DamagedTables tables = image.tables();
  // So that steps follow each other.
  tables.set_refcount(tables.host_of(8), 3);
  tables.set_refcount(tables.host_of(9), 0);
  damage.plant(tables);
  Patient patient;
  patient.bytes.resize(image.disk().size());
  image.disk().peek(0, patient.bytes);
  patient.content = image.content();
  patient.snapshots = snapshots_of(image);
  patient.hazards = hazards_of(image.check());
  return patient;
}

Task<void> pour(SharedStorage& storage, const std::vector<std::byte>& bytes) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  co_await access->write(HostOffset(0), ConstBuffers(Bytes(bytes)));
}

CheckOptions repairing() {
  CheckOptions options;
  options.repair = CheckRepair::kAll;
  options.memory_max = 64 << 20;
  return options;
}

// What was left can be repaired to the end, and a guest has lost nothing.
Task<void> expect_no_worse(const World& world, const sim::OpenStorages& open,
                           const Patient& patient) {
  std::vector<std::byte> content = co_await read_disk(world, TestImage(), std::move(open()[0]));
  EXPECT_TRUE(content == patient.content) << "a guest reads something else than before";
  CheckReport left = co_await check_storage(world, std::move(open()[0]), CheckOptions());
  const std::vector<std::string> hazards = hazards_of(left);
  EXPECT_LE(hazards.size(), patient.hazards.size()) << all_lines(left);
  // A new snapshot table must not be in use before it is counted.
  if (!patient.snapshots.empty()) {
    EXPECT_TRUE(std::ranges::includes(patient.hazards, hazards)) << all_lines(left);
  }
  CheckReport report = co_await check_storage(world, std::move(open()[0]), repairing());
  EXPECT_EQ(report.corruptions + report.leaks, 0u) << all_lines(report);
  std::vector<std::byte> after = co_await read_disk(world, TestImage(), std::move(open()[0]));
  EXPECT_TRUE(after == patient.content) << "a guest reads something else after the second repair";
  const SnapshotTable table = co_await snapshots_on(world, std::move(open()[0]));
  expect_same_but_complete(table.snapshots, patient.snapshots, patient.content.size());
}

class RepairScenario final : public sim::CrashScenario {
 public:
  explicit RepairScenario(Patient patient) : patient_(std::move(patient)) {}
  Task<void> prepare(const World&, const sim::OpenStorages& open) override {
    std::unique_ptr<SharedStorage> storage = std::move(open()[0]);
    Result<void> poured = co_await pour(*storage, patient_.bytes).result();
    co_await storage->node->close();
    co_await std::move(poured);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    CheckReport report = co_await check_storage(world, std::move(open()[0]), repairing());
    EXPECT_EQ(report.corruptions + report.leaks, 0u) << all_lines(report);
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    return expect_no_worse(world, open, patient_);
  }

 private:
  const Patient patient_;
};

TEST(RepairCrashTest, APowerCutLeavesTheImageNoWorse) {
  uint64_t crashes = 0;
  for (const PlantedDamage& damage : repairable_damage()) {
    if (!damage.keeps_content) continue;
    SCOPED_TRACE(damage.name);
    RepairScenario scenario(patient_with(damage));
    sim::CrashSweepOptions options;
    options.points = 60;
    options.subsets = 4;
    crashes += sim::run_crash_sweep(scenario, sim::seed_or(1), options);
    if (HasFailure()) return;
  }
  EXPECT_GT(crashes, 1000u);
}

TEST(RepairFaultTest, ARequestThatFailsLeavesTheImageNoWorse) {
  for (const PlantedDamage& damage : repairable_damage()) {
    if (!damage.keeps_content) continue;
    SCOPED_TRACE(damage.name);
    const Patient patient = patient_with(damage);
    sim::sweep_faults(1000, [&](uint64_t n) {
      sim::SimWorld world(sim::seed_or(1), 2);
      sim::SimFaults faults;
      sim::SimDisk disk(sim::SimDiskOptions::file(), 1, nullptr, &faults);
      disk.poke(0, patient.bytes);
      faults.fail_at = n;
      auto open = [&disk] {
        std::vector<std::unique_ptr<SharedStorage>> storages;
        storages.push_back(std::make_unique<SharedStorage>(
            std::make_unique<sim::SimStorageNode>(disk, "disk.qcow2", 1)));
        return storages;
      };
      auto repair = [&](Shard&) {
        return check_storage(world.world(), std::move(open()[0]), repairing());
      };
      Result<CheckReport> repaired = world.run(repair);
      const bool is_touched = faults.failed != 0;
      EXPECT_EQ(repaired.ok(), !is_touched);
      if (!repaired.ok()) {
        EXPECT_EQ(repaired.error().errno_value, EIO);
      }
      faults.fail_at.reset();
      const sim::OpenStorages opener = open;
      auto look = [&](Shard&) { return expect_no_worse(world.world(), opener, patient); };
      Result<void> looked = world.run(look);
      EXPECT_TRUE(looked.ok()) << world.diagnostics().describe(looked.error());
      return is_touched;
    });
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
