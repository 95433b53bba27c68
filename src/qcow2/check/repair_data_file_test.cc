// SPDX-License-Identifier: Apache-2.0
// Repair of entries that name places in a data file: a place has one right value, so what reads the
// same afterwards is mended, what may be another cluster's data is told of and stays.
#include <gtest/gtest.h>

#include "qcow2/check/damaged_image_test.h"
#include "qcow2/data_file_fixture_test.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kGuest = 3;  // whose entry is damaged; guest clusters 0 to 5 hold data

class DamagedPair {
 public:
  explicit DamagedPair(TestImage test_image) : image_(test_image) {
    disk_.poke(0, encode_test_image(image_, kEditedSize));
    auto fill = [this](Shard&) { return write({0, 1, 2, 3, 4, 5}); };
    EXPECT_TRUE(world_.run(fill).ok());
  }

  DamagedTables tables() { return DamagedTables(disk_, image_); }
  uint64_t own_place() const { return kGuest << image_.cluster_bits; }
  CheckReport check(CheckRepair repair = CheckRepair::kNone) {
    CheckOptions options;
    options.repair = repair;
    auto work = [&](Shard&) { return check_storage(world_.world(), storage_on(disk_), options); };
    Result<CheckReport> report = world_.run(work);
    EXPECT_TRUE(report.ok());
    return report.ok() ? std::move(report).value() : CheckReport();
  }
  Result<Content> content() {
    const sim::OpenStorages open = opener();
    auto read = [&](Shard&) { return content_on(world_.world(), image_, open, nullptr); };
    return world_.run(read);
  }
  void expect_writable() {
    auto more = [this](Shard&) { return write({3, 6}); };
    EXPECT_TRUE(world_.run(more).ok());
    EXPECT_EQ(all_lines(check()), "");
  }

 private:
  sim::OpenStorages opener() {
    return [this] {
      std::vector<std::unique_ptr<SharedStorage>> both;
      both.push_back(storage_on(disk_));
      both.push_back(data_on(data_));
      return both;
    };
  }
  Task<void> write(std::vector<uint64_t> guests) {
    const sim::OpenStorages open = opener();
    std::shared_ptr<DeviceNode> node =
        co_await open_image_on(world_.world(), image_, open, nullptr, false);
    const uint64_t cluster = uint64_t{1} << image_.cluster_bits;
    Result<void> written = co_await write_with(*node, cluster, guests).result();
    Result<void> closed = co_await node->close().result();
    co_await std::move(written);
    co_await std::move(closed);
  }

  const TestImage image_;
  sim::SimWorld world_{sim::seed_or(1), 1};
  sim::SimDisk disk_{sim::SimDiskOptions::file(), 1};
  sim::SimDisk data_{sim::SimDiskOptions::file(), 2};
};

struct PlaceDamage {
  const char* name;
  void (*plant)(DamagedTables& tables, uint64_t own_place);
  bool extended = false;
  bool mended = false;       // in a data file that is not raw
  bool mended_raw = false;   // in one that is
  bool shows_zeros = false;  // afterwards, and not the data
};

constexpr uint64_t kElsewhere = uint64_t{1} << 20;

const PlaceDamage kDamage[] = {
    {"reserved bits",
     [](DamagedTables& t, uint64_t own) { t.set_l2_entry(kGuest, own | kCopied | 1 << 5); }, false,
     true, true},
    {"data elsewhere",
     [](DamagedTables& t, uint64_t) { t.set_l2_entry(kGuest, kElsewhere | kCopied); }, false, false,
     true},
    {"data at a misaligned place",
     [](DamagedTables& t, uint64_t own) { t.set_l2_entry(kGuest, (own + 512) | kCopied); }, false,
     false, true},
    {"zeros elsewhere",
     [](DamagedTables& t, uint64_t) { t.set_l2_entry(kGuest, kElsewhere | kReadsZero); }, false,
     true, true, true},
    {"subclusters elsewhere",
     [](DamagedTables& t, uint64_t) { t.set_l2_entry(kGuest, kElsewhere | kCopied); }, true, false,
     true},
    {"zero subclusters elsewhere",
     [](DamagedTables& t, uint64_t) {
       t.set_l2_entry(kGuest, kElsewhere | kCopied);
       t.set_bitmap(kGuest, uint64_t{0xffffffff} << 32);
     },
     true, true, true, true},
    {"subclusters that are data and zeros",
     [](DamagedTables& t, uint64_t) { t.set_bitmap(kGuest, ~uint64_t{0}); }, true, false, true},
};

// In a raw data file the data are where they must be, whatever an entry says.
TEST(RepairDataFileTest, WhatHasOneMeaningIsMended) {
  for (const PlaceDamage& damage : kDamage) {
    for (bool is_raw : {false, true}) {
      SCOPED_TRACE(std::string(damage.name) + (is_raw ? ", raw" : ""));
      TestImage image;
      image.cluster_bits = damage.extended ? kExtendedClusterBitsMin : 12;
      image.extended_l2 = damage.extended;
      image.has_data_file = true;
      image.data_file_is_raw = is_raw;
      DamagedPair pair(image);
      ASSERT_EQ(all_lines(pair.check()), "");
      const Content before = pair.content().value();
      DamagedTables tables = pair.tables();
      damage.plant(tables, pair.own_place());
      const uint64_t planted = tables.l2_entry(kGuest);
      EXPECT_EQ(pair.check().corruptions, 1u);
      const CheckReport repaired = pair.check(CheckRepair::kAll);
      const bool is_mended = is_raw ? damage.mended_raw : damage.mended;
      EXPECT_EQ(repaired.corruptions == 0, is_mended) << all_lines(repaired);
      if (!is_mended) {
        EXPECT_EQ(tables.l2_entry(kGuest), planted);
        continue;
      }
      const Result<Content> after = pair.content();
      ASSERT_TRUE(after.ok());
      Content wanted = before;
      if (damage.shows_zeros) {
        const uint64_t cluster = uint64_t{1} << image.cluster_bits;
        fill_zero(MutableBytes(wanted).subspan(kGuest * cluster, cluster));
      }
      EXPECT_TRUE(after.value() == wanted);
      pair.expect_writable();
    }
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
