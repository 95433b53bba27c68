// SPDX-License-Identifier: Apache-2.0
// Internal snapshots on the simulator: images of every geometry with random content, snapshots
// created, applied and deleted in random order; the power failing anywhere in an edit; every
// request of an edit failing once.
#include <gtest/gtest.h>

#include <map>

#include "qcow2/describe.h"
#include "qcow2/edit/edit_fixture_test.h"
#include "qcow2/edit/snapshots.h"

namespace ringdisk::qcow2 {
namespace {

using Action = SnapshotEdit::Action;
SnapshotEdit edit_of(Action action, std::string name) {
  SnapshotEdit edit;
  edit.action = action;
  edit.name = std::move(name);
  edit.date_seconds = 1'700'000'000;
  return edit;
}

Task<void> edit_image(const World& world, std::unique_ptr<SharedStorage> storage,
                      SnapshotEdit edit) {
  world.diagnostics.add_node("disk.qcow2");  // the storage's id, if it is the first
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  co_await edit_snapshots(graph, std::move(storage), std::move(edit));
}

// An image with its expected content and that of its snapshots.
class SnapshotModel {
 public:
  SnapshotModel(sim::SimWorld& world, TestImage image, uint64_t seed)
      : world_(world), image_(image), random_(seed), disk_(sim::SimDiskOptions::file(), seed) {
    disk_.poke(0, encode_test_image(image, kEditedSize));
    content_.resize(kEditedSize.value());
  }

  void step() {
    switch (random_.below(4)) {
      case 0:
        write();
        break;
      case 1:
        create();
        break;
      case 2:
        if (!snapshots_.empty()) apply(drawn_name());
        break;
      default:
        if (!snapshots_.empty()) remove(drawn_name());
        break;
    }
    expect_all();
  }
  void write() {
    auto body = [&](Shard&) {
      return write_image(world_.world(), image_, storage_on(disk_), random_.next(), content_);
    };
    ASSERT_TRUE(world_.run(body).ok());
  }
  void create() {
    const std::string name = "s" + std::to_string(++names_);
    edit(Action::kCreate, name);
    snapshots_[name] = content_;
  }
  void apply(const std::string& name) {
    edit(Action::kApply, name);
    content_ = snapshots_[name];
  }
  void remove(const std::string& name) {
    edit(Action::kDelete, name);
    snapshots_.erase(name);
  }
  void remove_all() {
    while (!snapshots_.empty()) remove(snapshots_.begin()->first);
    expect_all();
  }

 private:
  std::string drawn_name() {
    auto at = snapshots_.begin();
    std::advance(at, random_.below(snapshots_.size()));
    return at->first;
  }
  void edit(Action action, const std::string& name) {
    auto body = [&](Shard&) {
      return edit_image(world_.world(), storage_on(disk_), edit_of(action, name));
    };
    const Result<void> edited = world_.run(body);
    ASSERT_TRUE(edited.ok()) << world_.diagnostics().describe(edited.error());
  }
  void expect_all() {
    auto check = [&](Shard&) {
      return check_test_image(world_.world(), image_, storage_on(disk_));
    };
    ASSERT_TRUE(world_.run(check).ok());
    expect_content("", content_);
    for (const auto& [name, content] : snapshots_) expect_content(name, content);
  }
  void expect_content(const std::string& name, const Content& expected) {
    auto body = [&](Shard&) { return read_content(world_.world(), storage_on(disk_), name); };
    Result<Content> read = world_.run(body);
    ASSERT_TRUE(read.ok()) << world_.diagnostics().describe(read.error());
    EXPECT_TRUE(read.value() == expected) << "of snapshot '" << name << "'";
  }

  sim::SimWorld& world_;
  const TestImage image_;
  Random random_;
  sim::SimDisk disk_;
  Content content_;
  std::map<std::string, Content> snapshots_;
  int names_ = 0;
};

TEST(SnapshotTest, HoldWhatTheDiskWasInEveryGeometry) {
  sim::for_each_seed(30, [](uint64_t seed) {
    sim::SimWorld world(seed, 2);
    SnapshotModel model(world, drawn_edited_image_or_extended(seed), seed);
    for (int i = 0; i < 16 && !::testing::Test::HasFailure(); ++i) model.step();
    model.remove_all();
  });
}

TEST(SnapshotTest, WhatIsNotThereIsNamed) {
  sim::SimWorld world(1, 1);
  sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
  disk.poke(0, encode_test_image(TestImage(), kEditedSize));
  auto body = [&](Shard&) {
    return edit_image(world.world(), storage_on(disk), edit_of(Action::kDelete, "gone"));
  };
  const Result<void> edited = world.run(body);
  ASSERT_FALSE(edited.ok());
  EXPECT_EQ(edited.error().kind, ErrorKind::kNotFound);
  EXPECT_NE(world.diagnostics().describe(edited.error()).find("no snapshot 'gone'"),
            std::string::npos);
}

// With one bit a refcount counts no sharing.
TEST(SnapshotTest, ARefcountThatCannotGoHigherLeavesTheImageAsItWas) {
  sim::SimWorld world(1, 1);
  TestImage image;
  image.refcount_order = 0;
  sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
  disk.poke(0, encode_test_image(image, kEditedSize));
  Content content(kEditedSize.value());
  auto body = [&](Shard&) {
    return write_image(world.world(), image, storage_on(disk), 1, content);
  };
  ASSERT_TRUE(world.run(body).ok());
  auto edit = [&](Shard&) {
    return edit_image(world.world(), storage_on(disk), edit_of(Action::kCreate, "one"));
  };
  const Result<void> edited = world.run(edit);
  ASSERT_FALSE(edited.ok());
  EXPECT_EQ(edited.error().kind, ErrorKind::kLimit);
  auto check = [&](Shard&) { return check_test_image(world.world(), image, storage_on(disk)); };
  EXPECT_TRUE(world.run(check).ok());
  auto read = [&](Shard&) { return read_content(world.world(), storage_on(disk), ""); };
  EXPECT_TRUE(world.run(read).value() == content);
}

// Some clusters are counted as often as two bits can, newer ones are not: what was raised before
// the first of those is taken back.
TEST(SnapshotTest, WhatWasRaisedBeforeTheLimitIsTakenBack) {
  sim::for_each_seed(12, [](uint64_t seed) {
    sim::SimWorld world(seed, 1 + seed % 3);
    TestImage image = drawn_edited_image(seed);
    image.version = 3;
    image.cluster_bits = static_cast<uint32_t>(9 + seed % 4);  // some are never written again
    image.refcount_order = 1;
    sim::SimDisk disk(sim::SimDiskOptions::file(), seed);
    disk.poke(0, encode_test_image(image, kEditedSize));
    Content content(kEditedSize.value());
    Result<void> edited;
    int snapshots = 0;
    for (; edited.ok() && snapshots < 4; ++snapshots) {
      auto write = [&](Shard&) {
        return write_image(world.world(), image, storage_on(disk), seed + 100 * snapshots, content);
      };
      ASSERT_TRUE(world.run(write).ok());
      auto edit = [&](Shard&) {
        const std::string name = "s" + std::to_string(snapshots);
        return edit_image(world.world(), storage_on(disk), edit_of(Action::kCreate, name));
      };
      edited = world.run(edit);
    }
    ASSERT_FALSE(edited.ok());
    EXPECT_EQ(edited.error().kind, ErrorKind::kLimit);
    auto check = [&](Shard&) { return check_test_image(world.world(), image, storage_on(disk)); };
    EXPECT_TRUE(world.run(check).ok());
    auto read = [&](Shard&) { return read_content(world.world(), storage_on(disk), ""); };
    EXPECT_TRUE(world.run(read).value() == content);
  });
}

TEST(SnapshotTest, AFullDeviceLeavesTheImageAsItWas) {
  sim::SimWorld world(1, 1);
  TestImage image;
  Content content(kEditedSize.value());
  const std::vector<std::byte> tables = encode_test_image(image, kEditedSize);
  sim::SimDisk disk(sim::SimDiskOptions::block_device(ByteCount(300 << 10), 512), 1);
  disk.poke(0, tables);
  Result<void> filled;
  for (uint64_t seed = 1; filled.ok(); ++seed) {
    ASSERT_LT(seed, 50u);
    auto fill = [&](Shard&) {
      return write_image(world.world(), image, storage_on(disk), seed, content);
    };
    filled = world.run(fill);
  }
  ASSERT_EQ(filled.error().errno_value, ENOSPC);
  auto edit = [&](Shard&) {
    return edit_image(world.world(), storage_on(disk), edit_of(Action::kCreate, "one"));
  };
  const Result<void> edited = world.run(edit);
  ASSERT_FALSE(edited.ok());
  EXPECT_EQ(edited.error().errno_value, ENOSPC);
  auto check = [&](Shard&) { return check_test_image(world.world(), image, storage_on(disk)); };
  EXPECT_TRUE(world.run(check).ok());
}

Task<Header> header_of(const World& world, std::unique_ptr<SharedStorage> storage) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*storage, Shard::current());
  Result<Header> header = co_await read_header(*access, world.diagnostics).result();
  access.reset();
  co_await storage->node->close();
  co_return std::move(header);
}

// The disk has nothing to do with it.
TEST(SnapshotTest, ADamagedTableOfSnapshotsRefusesEditsAndLeavesTheDiskWritable) {
  sim::SimWorld world(1, 1);
  const TestImage image;
  sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
  disk.poke(0, encode_test_image(image, kEditedSize));
  auto edit = [&](Shard&) {
    return edit_image(world.world(), storage_on(disk), edit_of(Action::kCreate, "one"));
  };
  ASSERT_TRUE(world.run(edit).ok());
  auto look = [&](Shard&) { return header_of(world.world(), storage_on(disk)); };
  const Header before = world.run(look).value();
  const std::vector<std::byte> nonsense(512, std::byte{0xff});
  disk.poke(before.snapshot_table.value(), nonsense);
  const Result<void> edited = world.run(edit);
  ASSERT_FALSE(edited.ok());
  EXPECT_EQ(edited.error().kind, ErrorKind::kCorrupt);
  EXPECT_EQ(world.run(look).value().incompatible_features, uint64_t{0});
  Content content(kEditedSize.value());
  auto write = [&](Shard&) {
    return write_image(world.world(), image, storage_on(disk), 5, content);
  };
  EXPECT_TRUE(world.run(write).ok());
}

// Its table cannot lie where its entry says: of all that can be done to it, only that it goes.
TEST(SnapshotTest, OneWithoutATableCanBeDeletedAndLeavesLeaks) {
  const std::vector<std::pair<uint64_t, uint32_t>> places = {
      {uint64_t{1} << 40, 1}, {512 * 3 + 8, 1}, {0, 0xffffffff}, {512, 1 << 20}};
  for (const auto& [at, entries] : places) {
    SCOPED_TRACE(at);
    sim::SimWorld world(1, 1);
    const TestImage image;
    sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
    disk.poke(0, encode_test_image(image, kEditedSize));
    Content kept(kEditedSize.value());
    auto prepare = [&](Shard&) {
      return write_image(world.world(), image, storage_on(disk), 5, kept);
    };
    ASSERT_TRUE(world.run(prepare).ok());
    auto edit = [&](Action action, const std::string& name) {
      auto body = [&](Shard&) {
        return edit_image(world.world(), storage_on(disk), edit_of(action, name));
      };
      return world.run(body);
    };
    ASSERT_TRUE(edit(Action::kCreate, "lost").ok());
    ASSERT_TRUE(edit(Action::kCreate, "kept").ok());
    auto look = [&](Shard&) { return header_of(world.world(), storage_on(disk)); };
    const uint64_t entry = world.run(look).value().snapshot_table.value();
    std::vector<std::byte> place(12);
    store_be64(&place[0], at);
    store_be32(&place[8], entries);
    disk.poke(entry, place);
    EXPECT_EQ(edit(Action::kApply, "lost").error().kind, ErrorKind::kCorrupt);
    EXPECT_TRUE(edit(Action::kDelete, "lost").ok());
    EXPECT_EQ(edit(Action::kDelete, "lost").error().kind, ErrorKind::kNotFound);
    TestImage leaky = image;
    leaky.leaks_allowed = true;
    auto check = [&](Shard&) { return check_test_image(world.world(), leaky, storage_on(disk)); };
    EXPECT_TRUE(world.run(check).ok());
    for (const std::string name : {"", "kept"}) {
      auto read = [&](Shard&) { return read_content(world.world(), storage_on(disk), name); };
      EXPECT_TRUE(world.run(read).value() == kept) << "of '" << name << "'";
    }
  }
}

// --- crashes and faults

// An edit of an image with a snapshot "old" whose content differs from the disk's.
class SnapshotSweep final : public TestedEdit {
 public:
  SnapshotSweep(TestImage test_image, Action action, uint64_t seed)
      : TestedEdit(test_image), action_(action), seed_(seed) {}

  Task<void> prepare(const World& world, sim::OpenStorages open) override {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    co_await create_test_image(image, *storage, kEditedSize);
    co_await storage->node->close();
    before.assign(kEditedSize.value(), std::byte{0});
    std::unique_ptr<SharedStorage> first = std::move(open().front());
    co_await write_image(world, image, std::move(first), seed_, before);
    old_ = before;
    std::unique_ptr<SharedStorage> second = std::move(open().front());
    const SnapshotEdit edit = edit_of(Action::kCreate, "old");
    co_await edit_image(world, std::move(second), edit);
    std::unique_ptr<SharedStorage> third = std::move(open().front());
    co_await write_image(world, image, std::move(third), seed_ + 1000, before);
    after = action_ == Action::kApply ? old_ : before;
  }
  Task<void> edit(const World& world, std::unique_ptr<SharedStorage> storage) override {
    const SnapshotEdit edit = edit_of(action_, action_ == Action::kCreate ? "new" : "old");
    return edit_image(world, std::move(storage), edit);
  }
  Task<void> expect_rest(const World& world, sim::OpenStorages open) override {
    if (action_ == Action::kDelete) co_return;
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    co_await expect_one_of(world, std::move(storage), "old", old_, old_);
  }

 private:
  const Action action_;
  const uint64_t seed_;
  Content old_;
};

TEST(SnapshotCrashTest, ACrashInAnEditLeavesItDoneOrNotDone) {
  for (Action action : {Action::kCreate, Action::kApply, Action::kDelete}) {
    sim::for_each_seed(8, [action](uint64_t seed) {
      SnapshotSweep edit(drawn_edited_image_or_extended(seed), action, seed);
      expect_done_or_not_done(edit, seed);
    });
  }
}

// Without a dirty bit nothing is put right at the next open.
TEST(SnapshotCrashTest, ACrashInVersion2LeavesNoFlagThatLies) {
  sim::for_each_seed(4, [](uint64_t seed) {
    TestImage image = drawn_edited_image(seed);
    image.version = 2;
    image.refcount_order = 4;
    SnapshotSweep edit(image, Action::kCreate, seed);
    expect_done_or_not_done(edit, seed);
  });
}

TEST(SnapshotFaultTest, EveryFailureIsToldAndLosesNothing) {
  for (Action action : {Action::kCreate, Action::kApply, Action::kDelete}) {
    sim::for_each_seed(2, [action](uint64_t seed) {
      TestImage image = drawn_edited_image_or_extended(seed);
      image.cluster_bits = image.extended_l2 ? kExtendedClusterBitsMin : 12;
      SnapshotSweep edit(image, action, seed);
      expect_failures_told(edit, seed);
    });
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
