// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps on the simulator: what is written is recorded, from every shard; edits; other
// sizes and snapshots; what a crash left in use.
#include <gtest/gtest.h>

#include "qcow2/bitmaps/bitmap_fixture_test.h"
#include "qcow2/edit/resize.h"
#include "qcow2/edit/snapshots.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

using Action = BitmapEdit::Action;

constexpr ByteCount kSize(1 << 20);
constexpr size_t kGranules = kSize.value() / kTestGranularity;

// One image on one disk, used step by step.
class BitmapStage {
 public:
  explicit BitmapStage(TestImage image = {}, uint64_t seed = 1, uint32_t shards = 3,
                       uint32_t padding = 0, const std::string& backing = "",
                       sim::SimDiskOptions disk = sim::SimDiskOptions::file())
      : image_(image), world_(seed, shards), disk_(disk, seed) {
    disk_.poke(0, encode_padded_image(image_, kSize, padding, backing));
  }

  const World& world() { return world_.world(); }
  std::unique_ptr<SharedStorage> storage() { return storage_on(disk_); }
  // The error as a person reads it; "" for none.
  template <class Work>
  std::string run(Work work) {
    auto on_shard = [&work](Shard&) { return work(); };
    Result<void> done = world_.run(on_shard);
    return done.ok() ? "" : world_.diagnostics().describe(done.error());
  }
  std::string edit(std::vector<BitmapEdit> edits) {
    return run([&] { return edit_test_bitmaps(world(), storage(), edits); });
  }
  std::vector<bool> change(uint64_t seed, int requests = 30) {
    std::vector<bool> touched(kGranules);
    EXPECT_EQ(run([&] {
                return change_image_at_random(world(), image_, storage(), seed, requests, touched);
              }),
              "");
    return touched;
  }
  SeenBitmaps seen() {
    auto read = [&](Shard&) { return read_bitmaps(world(), storage()); };
    Result<SeenBitmaps> result = world_.run(read);
    EXPECT_TRUE(result.ok());
    return result.ok() ? std::move(result).value() : SeenBitmaps();
  }
  Content content() {
    auto read = [&](Shard&) { return read_content(world(), storage(), ""); };
    Result<Content> result = world_.run(read);
    EXPECT_TRUE(result.ok());
    return result.ok() ? std::move(result).value() : Content();
  }
  void check() {
    EXPECT_EQ(run([&] { return check_test_image(world(), image_, storage()); }), "");
  }
  uint64_t get64(uint64_t at) const {
    std::byte bytes[8];
    disk_.peek(at, bytes);
    return load_be64(bytes);
  }
  void put64(uint64_t at, uint64_t value) {
    std::byte bytes[8];
    store_be64(bytes, value);
    disk_.poke(at, bytes);
  }
  // Of the bitmaps extension's content.
  uint64_t extension_at() {
    for (uint64_t at = kVersion3HeaderBytes; at < 1024; at += 8) {
      if (get64(at) >> 32 == static_cast<uint64_t>(ExtensionType::kBitmaps)) return at + 8;
    }
    ADD_FAILURE() << "there is no bitmaps extension";
    return 0;
  }
  uint64_t directory_at() { return get64(extension_at() + 16); }
  template <class Edit>
  std::string edit_whole(Edit edit) {
    return run([&]() { return edit_through_graph(edit); });
  }

 private:
  template <class Edit>
  Task<void> edit_through_graph(Edit& edit) {
    world().diagnostics.add_node("disk.qcow2");
    const Drivers drivers;
    const OpenGate gate(world().diagnostics);
    Graph graph(world(), drivers, gate);
    co_await edit(graph, storage());
  }

  const TestImage image_;
  sim::SimWorld world_;
  sim::SimDisk disk_;
};

TestImage drawn_image(uint64_t seed) {
  Random random(seed);
  TestImage image;
  image.cluster_bits = static_cast<uint32_t>(9 + random.below(8));
  image.refcount_order = static_cast<uint32_t>(3 + random.below(4));
  image.extended_l2 = image.cluster_bits >= 14 && random.chance(50);
  return image;
}

TEST(BitmapTrackingTest, RecordsWhatEveryShardChangesAndNothingElse) {
  sim::for_each_seed(40, [](uint64_t seed) {
    BitmapStage stage(drawn_image(seed), seed, 1 + seed % 4);
    stage.change(seed);
    ASSERT_EQ(stage.edit({add_bitmap("b0"), add_bitmap("coarse", 65536), add_bitmap("off"),
                          bitmap_edit(Action::kDisable, "off")}),
              "");
    stage.check();
    const Content before = stage.content();
    const std::vector<bool> touched = stage.change(seed + 1000);
    stage.check();
    const Content after = stage.content();
    EXPECT_NE(before, after);
    const SeenBitmaps seen = stage.seen();
    ASSERT_EQ(seen.dirty.size(), 3u);
    expect_covered(seen.dirty.at("b0"), before, after, kTestGranularity);
    expect_covered(seen.dirty.at("coarse"), before, after, 65536);
    EXPECT_EQ(seen.dirty.at("off"), std::vector<bool>(kGranules));
    for (size_t i = 0; i < kGranules; ++i) {
      EXPECT_LE(seen.dirty.at("b0")[i], touched[i]) << "granule " << i;
    }
  });
}

// New clusters of a device hold what they held, so writes that meet in one leave as one
// (block/joined_writes.h): each is recorded.
TEST(BitmapTrackingTest, RecordsWritesThatLeaveAsOne) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestImage image;
    image.cluster_bits = 16;
    BitmapStage stage(image, seed, 1 + seed % 2, 0, "",
                      sim::SimDiskOptions::block_device(ByteCount(8 << 20), 512));
    ASSERT_EQ(stage.edit({add_bitmap("b0")}), "");
    const Content before = stage.content();
    stage.change(seed, 12);
    expect_covered(stage.seen().dirty.at("b0"), before, stage.content(), kTestGranularity);
    stage.check();
  });
}

TEST(BitmapTrackingTest, GoesOnOverManySessionsInTheSpaceOfOne) {
  BitmapStage stage;
  ASSERT_EQ(stage.edit({add_bitmap("b0")}), "");
  const Content before = stage.content();
  std::vector<bool> dirty = stage.seen().dirty.at("b0");
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    stage.change(seed, 4);
    const std::vector<bool> now = stage.seen().dirty.at("b0");
    for (size_t i = 0; i < kGranules; ++i) EXPECT_LE(dirty[i], now[i]);
    dirty = now;
    stage.check();
  }
  expect_covered(dirty, before, stage.content(), kTestGranularity);
}

// Only a change of the disk starts a bitmap.
TEST(BitmapTrackingTest, ASessionThatChangesNothingWritesNothing) {
  BitmapStage stage;
  ASSERT_EQ(stage.edit({add_bitmap("b0")}), "");
  stage.change(1);
  const uint64_t directory = stage.directory_at();
  const uint64_t table = stage.get64(directory);
  stage.change(2, 0);
  EXPECT_EQ(stage.directory_at(), directory);
  EXPECT_EQ(stage.get64(directory), table);
}

Task<void> see_while_open(const World& world, std::unique_ptr<SharedStorage> storage) {
  std::shared_ptr<DeviceNode> node =
      co_await open_test_image(world, TestImage(), nullptr, std::move(storage), false);
  std::shared_ptr<const DirtyBits> bits = co_await node->format().find_bitmap("b0");
  EXPECT_EQ(granules_of(*bits), std::vector<bool>(kGranules));
  std::unique_ptr<DeviceQueue> queue = co_await node->open_queue(Shard::current());
  std::vector<std::byte> bytes(512);
  co_await queue->write(GuestOffset(3 * kTestGranularity), ConstBuffers(Bytes(bytes)),
                        WriteOptions());
  std::vector<bool> wanted(kGranules);
  wanted[3] = true;
  EXPECT_EQ(granules_of(*bits), wanted);
  const std::vector<BitmapDescription> all = co_await node->format().bitmaps();
  EXPECT_TRUE(all.size() == 1 && all[0].is_usable && all[0].is_enabled);
  queue.reset();
  co_await node->close();
}

TEST(BitmapTrackingTest, AReaderOfAnOpenImageSeesItGrow) {
  BitmapStage stage;
  ASSERT_EQ(stage.edit({add_bitmap("b0")}), "");
  EXPECT_EQ(stage.run([&] { return see_while_open(stage.world(), stage.storage()); }), "");
}

TEST(BitmapEditTest, EachEditDoesWhatItSays) {
  BitmapStage stage;
  ASSERT_EQ(stage.edit({add_bitmap("b0")}), "");
  stage.change(1);
  const std::vector<bool> b0 = stage.seen().dirty.at("b0");
  ASSERT_EQ(stage.edit({bitmap_edit(Action::kDisable, "b0"), add_bitmap("b1")}), "");
  stage.change(2);
  SeenBitmaps seen = stage.seen();
  EXPECT_EQ(seen.dirty.at("b0"), b0);
  const std::vector<bool> b1 = seen.dirty.at("b1");
  BitmapEdit merge = bitmap_edit(Action::kMerge, "b0");
  merge.source = "b1";
  ASSERT_EQ(stage.edit({merge, bitmap_edit(Action::kClear, "b1")}), "");
  seen = stage.seen();
  for (size_t i = 0; i < kGranules; ++i) {
    EXPECT_EQ(seen.dirty.at("b0")[i], b0[i] || b1[i]);
    EXPECT_FALSE(seen.dirty.at("b1")[i]);
  }
  ASSERT_EQ(stage.edit({bitmap_edit(Action::kEnable, "b0"), bitmap_edit(Action::kRemove, "b1")}),
            "");
  stage.check();
  EXPECT_EQ(stage.seen().dirty.size(), 1u);
  ASSERT_EQ(stage.edit({bitmap_edit(Action::kRemove, "b0")}), "");
  EXPECT_EQ(stage.seen().dirty.size(), 0u);
  EXPECT_EQ(stage.get64(kAutoclearFeaturesAt), 0u);
  stage.check();
}

TEST(BitmapEditTest, OneThatFailsUndoesThoseBefore) {
  BitmapStage stage;
  ASSERT_EQ(stage.edit({add_bitmap("b0")}), "");
  EXPECT_NE(stage
                .edit({add_bitmap("b1"), bitmap_edit(Action::kRemove, "b0"),
                       bitmap_edit(Action::kClear, "zz")})
                .find("Dirty bitmap 'zz' not found"),
            std::string::npos);
  const SeenBitmaps seen = stage.seen();
  EXPECT_EQ(seen.dirty.size(), 1u);
  EXPECT_TRUE(seen.dirty.contains("b0"));
  stage.check();
}

TEST(BitmapEditTest, WhatCannotBeIsRefusedByName) {
  BitmapStage stage;
  ASSERT_EQ(stage.edit({add_bitmap("b0")}), "");
  auto refused = [&stage](BitmapEdit edit) { return stage.edit({std::move(edit)}); };
  EXPECT_NE(refused(add_bitmap("b0")).find("Bitmap already exists: b0"), std::string::npos);
  EXPECT_NE(refused(add_bitmap("b1", 256)).find("granularity"), std::string::npos);
  EXPECT_NE(refused(add_bitmap("b1", 4097)).find("granularity"), std::string::npos);
  EXPECT_NE(refused(add_bitmap("b1", uint64_t{1} << 32)).find("granularity"), std::string::npos);
  EXPECT_NE(refused(add_bitmap(std::string(1024, 'n'))).find("1023"), std::string::npos);
  EXPECT_EQ(refused(add_bitmap(std::string(1023, 'n'))), "");
  BitmapEdit merge = bitmap_edit(Action::kMerge, "b0");
  merge.source = "elsewhere";
  merge.source_bits = std::make_shared<DirtyBits>(ByteCount(512), 12);
  EXPECT_NE(refused(merge).find("different sizes"), std::string::npos);
  stage.check();
}

TEST(BitmapEditTest, Version2HasNone) {
  TestImage image;
  image.version = 2;
  BitmapStage stage(image);
  EXPECT_NE(stage.edit({add_bitmap("b0")}).find("compat=1.1"), std::string::npos);
  stage.check();
}

// The extension's place in the header: anywhere against sectors, before a backing file's name that
// has to move.
TEST(BitmapEditTest, TheHeaderFindsRoomWhereverItsExtensionsLie) {
  for (uint32_t padding = 0; padding <= 440; padding += 8) {
    for (const std::string& backing : {std::string(), std::string("base.raw")}) {
      BitmapStage stage(TestImage(), 1, 1, padding, backing);
      for (int round = 0; round < 2; ++round) {
        ASSERT_EQ(stage.edit({add_bitmap("b0")}), "") << padding;
        ASSERT_EQ(stage.edit({add_bitmap("b1")}), "") << padding;
        EXPECT_EQ(stage.seen().dirty.size(), 2u) << padding;
        ASSERT_EQ(stage.edit({bitmap_edit(Action::kRemove, "b0")}), "");
        ASSERT_EQ(stage.edit({bitmap_edit(Action::kRemove, "b1")}), "");
        EXPECT_EQ(stage.seen().dirty.size(), 0u) << padding;
      }
      stage.check();
    }
  }
}

TEST(BitmapEditTest, AHeaderWithoutRoomSaysSo) {
  TestImage image;
  image.cluster_bits = 9;
  BitmapStage stage(image, 1, 1, 368);
  EXPECT_NE(stage.edit({add_bitmap("b0")}).find("has no room"), std::string::npos);
  stage.check();
}

// --- what a crash left

TEST(BitmapInUseTest, IsInconsistentUntilItIsRemoved) {
  BitmapStage stage;
  ASSERT_EQ(stage.edit({add_bitmap("b0"), add_bitmap("b1")}), "");
  stage.change(1);
  const uint64_t entry = stage.directory_at();
  stage.put64(entry + 8, stage.get64(entry + 8) | kBitmapInUse);
  EXPECT_EQ(stage.seen().unusable, std::vector<std::string>{"b0"});
  stage.change(2);
  EXPECT_EQ(stage.seen().unusable, std::vector<std::string>{"b0"});
  stage.check();
  for (Action action : {Action::kClear, Action::kEnable, Action::kDisable, Action::kMerge}) {
    BitmapEdit edit = bitmap_edit(action, "b0");
    edit.source = "b1";
    EXPECT_NE(stage.edit({edit}).find("inconsistent and cannot be used"), std::string::npos);
  }
  BitmapEdit merge = bitmap_edit(Action::kMerge, "b1");
  merge.source = "b0";
  EXPECT_NE(stage.edit({merge}).find("inconsistent and cannot be used"), std::string::npos);
  ASSERT_EQ(stage.edit({bitmap_edit(Action::kRemove, "b0")}), "");
  EXPECT_EQ(stage.seen().dirty.size(), 1u);
  stage.check();
}

// Another program has written to the image: what the extension says means nothing any more.
TEST(BitmapInUseTest, WithoutTheAutoclearBitThereAreNone) {
  TestImage image;
  image.leaks_allowed = true;
  BitmapStage stage(image);
  ASSERT_EQ(stage.edit({add_bitmap("b0")}), "");
  stage.put64(kAutoclearFeaturesAt, 0);
  EXPECT_EQ(stage.seen().dirty.size(), 0u);
  stage.change(1);
  EXPECT_EQ(stage.seen().dirty.size(), 0u);
  ASSERT_EQ(stage.edit({add_bitmap("b1")}), "");
  EXPECT_EQ(stage.seen().dirty.size(), 1u);
  stage.check();
}

// A directory that cannot be understood is given up by a writer, and is no danger to it.
TEST(BitmapInUseTest, ADamagedDirectoryIsGivenUpByAWriter) {
  TestImage image;
  image.leaks_allowed = true;
  for (int damage = 0; damage < 4; ++damage) {
    BitmapStage stage(image);
    ASSERT_EQ(stage.edit({add_bitmap("b0")}), "");
    stage.change(1);
    const uint64_t directory = stage.directory_at();
    const uint64_t table = stage.get64(directory);
    if (damage == 0) stage.put64(directory, 0);                // no table
    if (damage == 1) stage.put64(directory, stage.get64(40));  // the L1 table
    if (damage == 2) stage.put64(table, directory);            // data on the directory
    if (damage == 3) stage.put64(stage.extension_at() + 16, uint64_t{1} << 40);
    stage.change(2);
    EXPECT_EQ(stage.get64(kAutoclearFeaturesAt), 0u) << damage;
    EXPECT_EQ(stage.seen().dirty.size(), 0u);
    stage.check();
  }
}

// --- other changes of the image

TEST(BitmapResizeTest, BitmapsFollowTheDisk) {
  for (ByteCount size : {ByteCount(3 << 20), ByteCount(600 << 10)}) {
    BitmapStage stage;
    ASSERT_EQ(stage.edit({add_bitmap("b0"), add_bitmap("off", 65536),
                          bitmap_edit(Action::kDisable, "off")}),
              "");
    stage.change(1);
    const std::vector<bool> before = stage.seen().dirty.at("b0");
    auto resize = [size](Graph& graph, std::unique_ptr<SharedStorage> storage) {
      return resize_image(graph, std::move(storage), size);
    };
    ASSERT_EQ(stage.edit_whole(resize), "");
    const SeenBitmaps seen = stage.seen();
    ASSERT_EQ(seen.dirty.size(), 2u);
    std::vector<bool> wanted = before;
    wanted.resize(size.value() / kTestGranularity);
    EXPECT_EQ(seen.dirty.at("b0"), wanted);
    EXPECT_EQ(seen.dirty.at("off").size(), (size.value() + 65535) / 65536);
  }
}

TEST(BitmapResizeTest, ABitmapThatWouldBeTooLargeRefusesTheSize) {
  BitmapStage stage;
  ASSERT_EQ(stage.edit({add_bitmap("b0", 512)}), "");
  auto resize = [](Graph& graph, std::unique_ptr<SharedStorage> storage) {
    return resize_image(graph, std::move(storage), ByteCount(uint64_t{4} << 40));
  };
  EXPECT_NE(stage.edit_whole(resize).find("bitmap 'b0' needs more than 512 MiB"),
            std::string::npos);
  EXPECT_EQ(stage.seen().dirty.size(), 1u);
  stage.check();
}

TEST(BitmapSnapshotTest, ASnapshotThatIsAppliedMarksWhatBecomesAnother) {
  sim::for_each_seed(10, [](uint64_t seed) {
    BitmapStage stage(drawn_image(seed), seed);
    stage.change(seed);
    auto snapshot = [](SnapshotEdit::Action action) {
      return [action](Graph& graph, std::unique_ptr<SharedStorage> storage) {
        SnapshotEdit edit;
        edit.action = action;
        edit.name = "one";
        return edit_snapshots(graph, std::move(storage), edit);
      };
    };
    ASSERT_EQ(stage.edit_whole(snapshot(SnapshotEdit::Action::kCreate)), "");
    stage.change(seed + 1, 3);
    ASSERT_EQ(
        stage.edit({add_bitmap("b0"), add_bitmap("off"), bitmap_edit(Action::kDisable, "off")}),
        "");
    const Content before = stage.content();
    ASSERT_EQ(stage.edit_whole(snapshot(SnapshotEdit::Action::kApply)), "");
    stage.check();
    SeenBitmaps seen = stage.seen();
    ASSERT_EQ(seen.dirty.size(), 2u);
    expect_covered(seen.dirty.at("b0"), before, stage.content(), kTestGranularity);
    EXPECT_EQ(seen.dirty.at("off"), std::vector<bool>(kGranules));
    ASSERT_EQ(stage.edit_whole(snapshot(SnapshotEdit::Action::kDelete)), "");
    EXPECT_EQ(stage.seen().dirty, seen.dirty);
    stage.check();
  });
}

}  // namespace
}  // namespace ringdisk::qcow2
