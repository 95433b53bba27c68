// SPDX-License-Identifier: Apache-2.0
// Amended images on the simulator: what each change does, what is refused, the power failing
// anywhere in them, every request of them failing once. The disk reads the same throughout.
#include "qcow2/edit/amend.h"

#include <gtest/gtest.h>

#include "qcow2/describe.h"
#include "qcow2/edit/edit_fixture_test.h"
#include "qcow2/edit/header_rewrite.h"
#include "qcow2/edit/snapshots.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

using OpenStorage = std::function<std::unique_ptr<SharedStorage>()>;

Task<std::unique_ptr<SharedStorage>> opened(std::unique_ptr<SharedStorage> storage) {
  co_return std::move(storage);
}

Task<void> amend_test_image(const World& world, OpenStorage open, std::string options) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  AmendRequest request;
  request.open = [open] { return opened(open()); };
  request.options = co_await Options::parse(options, world.diagnostics);
  co_await amend_image(graph, std::move(request));
}

Task<Header> header_on(const World& world, std::unique_ptr<SharedStorage> storage) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*storage, Shard::current());
  Result<Header> header = co_await read_header(*access, world.diagnostics).result();
  access.reset();
  co_await storage->node->close();
  co_return std::move(header);
}

Task<void> take_snapshot(const World& world, std::unique_ptr<SharedStorage> storage) {
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  SnapshotEdit edit;
  edit.name = "then";
  co_await edit_snapshots(graph, std::move(storage), std::move(edit));
}

// What an image is before it is amended, and how.
struct Case {
  TestImage image;
  std::string options;
  bool has_snapshot = false;
};

Case drawn_case(uint64_t seed) {
  Case drawn;
  drawn.image = drawn_edited_image(seed);
  drawn.image.cluster_bits = 9 + seed % 4;
  drawn.image.extended_l2 = false;
  drawn.has_snapshot = seed % 3 == 0;
  switch (seed % 4) {
    case 0:
      drawn.image.version = 2;
      drawn.options = "compat=1.1,refcount_bits=32";
      break;
    case 1:
      drawn.image.version = 3;
      drawn.options = "compat=0.10,refcount_bits=16";
      break;
    case 2:
      drawn.image.version = 3;
      drawn.image.refcount_order = 6;
      drawn.options = "refcount_bits=2";
      break;
    default:
      drawn.image.version = 3;
      drawn.options = "lazy_refcounts=on,refcount_bits=8";
  }
  return drawn;
}

Task<void> prepare_case(const World& world, Case drawn, OpenStorage open, uint64_t seed,
                        Content& content) {
  std::unique_ptr<SharedStorage> storage = open();
  co_await create_test_image(drawn.image, *storage, kEditedSize);
  co_await storage->node->close();
  content.assign(kEditedSize.value(), std::byte{0});
  std::unique_ptr<SharedStorage> again = open();
  co_await write_image(world, drawn.image, std::move(again), seed, content);
  if (!drawn.has_snapshot) co_return;
  std::unique_ptr<SharedStorage> third = open();
  co_await take_snapshot(world, std::move(third));
}

Task<void> expect_same(const World& world, const Case& drawn, OpenStorage open,
                       const Content& content) {
  std::unique_ptr<SharedStorage> storage = open();
  co_await expect_one_of(world, std::move(storage), "", content, content);
  if (!drawn.has_snapshot) co_return;
  storage = open();
  co_await expect_one_of(world, std::move(storage), "then", content, content);
}

class AmendCrash final : public sim::CrashScenario {
 public:
  AmendCrash(Case drawn, uint64_t seed) : case_(std::move(drawn)), seed_(seed) {}

  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    return prepare_case(world, case_, first_of(open), seed_, content_);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    return amend_test_image(world, first_of(open), case_.options);
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    return verify_all(world, open);
  }

 private:
  static OpenStorage first_of(const sim::OpenStorages& open) {
    return [open] { return std::move(open().front()); };
  }
  Task<void> verify_all(const World& world, const sim::OpenStorages& open) {
    const OpenStorage first = first_of(open);
    TestImage image = case_.image;
    std::unique_ptr<SharedStorage> storage = first();
    co_await expect_permitted_damage(world, std::move(storage));
    co_await expect_same(world, case_, first, content_);
    image.version = 2;  // as it may be, on the way from one to the other
    co_await expect_repaired_at_open(world, image, open);
    co_await expect_same(world, case_, first, content_);
  }

  const Case case_;
  const uint64_t seed_;
  Content content_;
};

TEST(AmendCrashTest, ACrashInAChangeLosesNothing) {
  sim::for_each_seed(12, [](uint64_t seed) {
    AmendCrash scenario(drawn_case(seed), seed);
    sim::CrashSweepOptions options;
    options.shards = 1;
    options.points = 60;
    EXPECT_GT(run_crash_sweep(scenario, seed, options), 0u);
  });
}

// Whether a failure was injected into the change.
bool run_amend_with_fault(const Case& drawn, uint64_t seed, uint64_t n) {
  sim::SimWorld world(seed, 1);
  sim::SimDisk disk(sim::SimDiskOptions::file(), seed);
  Content content;
  const OpenStorage open = [&disk] { return storage_on(disk); };
  auto prepare = [&](Shard&) { return prepare_case(world.world(), drawn, open, seed, content); };
  EXPECT_TRUE(world.run(prepare).ok());
  sim::SimFaults faults;
  faults.fail_at = n;
  disk.set_faults(&faults);
  auto work = [&](Shard&) { return amend_test_image(world.world(), open, drawn.options); };
  const Result<void> amended = world.run(work);
  disk.set_faults(nullptr);
  if (!amended.ok()) {
    EXPECT_EQ(amended.error().errno_value, EIO);
  }
  if (faults.failed == 0) {
    EXPECT_TRUE(amended.ok());
  }
  auto verify = [&](Shard&) { return expect_permitted_damage(world.world(), storage_on(disk)); };
  EXPECT_TRUE(world.run(verify).ok());
  auto look = [&](Shard&) { return expect_same(world.world(), drawn, open, content); };
  EXPECT_TRUE(world.run(look).ok());
  return faults.failed != 0;
}

TEST(AmendFaultTest, EveryFailureIsToldAndLosesNothing) {
  for (uint64_t seed : {3u, 4u, 5u, 6u}) {
    auto run = [&](uint64_t n) { return run_amend_with_fault(drawn_case(seed), seed, n); };
    EXPECT_GT(sim::sweep_faults(2000, run), 10u);
  }
}

// One image on one shard; a test says what is done to it.
class AmendTest : public ::testing::Test {
 protected:
  void make(TestImage image, bool has_snapshot = false) {
    case_.image = image;
    case_.has_snapshot = has_snapshot;
    auto prepare = [&](Shard&) { return prepare_case(world_.world(), case_, open_, 7, content_); };
    ASSERT_TRUE(world_.run(prepare).ok());
  }
  // The sentence with which it is refused; empty: it is not.
  std::string amend(std::string options) {
    auto work = [&](Shard&) { return amend_test_image(world_.world(), open_, options); };
    const Result<void> amended = world_.run(work);
    return amended.ok() ? "" : world_.world().diagnostics.describe(amended.error());
  }
  Header header() {
    auto look = [&](Shard&) { return header_on(world_.world(), storage_on(disk_)); };
    return world_.run(look).value();
  }
  void change_header(const HeaderChange& change) {
    auto work = [&](Shard&) { return rewrite(change); };
    ASSERT_TRUE(world_.run(work).ok());
  }
  // The first L1 entry of the only snapshot.
  void poke_snapshot_l1(uint64_t entry) {
    auto look = [&](Shard&) { return snapshots_on(world_.world(), storage_on(disk_)); };
    const SnapshotTable table = world_.run(look).value();
    std::vector<std::byte> raw(8);
    store_be64(&raw[0], entry);
    disk_.poke(table.snapshots.at(0).l1_table.value(), raw);
  }
  // Where the L1 table of the first snapshot is said to lie.
  void poke_snapshot_place(uint64_t place) {
    std::vector<std::byte> raw(8);
    store_be64(&raw[0], place);
    disk_.poke(header().snapshot_table.value(), raw);
  }
  void expect_sound() {
    auto check = [&](Shard&) {
      return check_test_image(world_.world(), case_.image, storage_on(disk_));
    };
    EXPECT_TRUE(world_.run(check).ok());
    auto look = [&](Shard&) { return expect_same(world_.world(), case_, open_, content_); };
    EXPECT_TRUE(world_.run(look).ok());
  }

 private:
  Task<void> rewrite(const HeaderChange& change) {
    std::unique_ptr<SharedStorage> storage = storage_on(disk_);
    std::unique_ptr<StorageAccess> access =
        co_await StorageAccess::open(*storage, Shard::current());
    co_await rewrite_header(*access, world_.world().diagnostics, change);
    access.reset();
    co_await storage->node->close();
  }

  sim::SimWorld world_{7, 1};
  sim::SimDisk disk_{sim::SimDiskOptions::file(), 7};
  const OpenStorage open_ = [this] { return storage_on(disk_); };
  Case case_;
  Content content_;
};

TEST_F(AmendTest, EachVersionBecomesTheOther) {
  TestImage image;
  image.version = 2;
  make(image, true);
  EXPECT_EQ(amend("compat=1.1"), "");
  EXPECT_EQ(header().version, 3u);
  EXPECT_TRUE(header().find_extension(ExtensionType::kFeatureNames));
  expect_sound();
  EXPECT_EQ(amend("compat=v2"), "");
  EXPECT_EQ(header().version, 2u);
  EXPECT_TRUE(header().extensions.empty());
  expect_sound();
}

TEST_F(AmendTest, EveryWidthBecomesEveryOther) {
  for (uint32_t cluster_bits : {9u, 12u}) {
    TestImage image;
    image.cluster_bits = cluster_bits;
    make(image);
    for (uint32_t bits : {1u, 64u, 2u, 32u, 4u, 16u, 8u, 1u, 8u}) {
      EXPECT_EQ(amend("refcount_bits=" + std::to_string(bits)), "");
      EXPECT_EQ(header().geometry().refcount_bits(), bits);
      expect_sound();
    }
  }
}

TEST_F(AmendTest, WhatAWidthCannotCountIsToldOf) {
  make(TestImage(), true);
  const std::string refused = amend("refcount_bits=1");
  EXPECT_NE(refused.find("used 2 times"), std::string::npos) << refused;
  EXPECT_EQ(header().geometry().refcount_bits(), 16u);
  expect_sound();
}

TEST_F(AmendTest, WhatNobodyKnowsIsKept) {
  make(TestImage());
  auto add_unknown = [](Header& changed) -> Result<void> {
    const std::string text(700, 'u');
    set_extension(changed, static_cast<ExtensionType>(0x75757575), as_bytes(text));
    changed.unknown_fields.assign(15, std::byte{0x5a});
    changed.compatible_features |= uint64_t{1} << 40;
    return {};
  };
  change_header(add_unknown);
  const Header before = header();
  for (const char* options : {"lazy_refcounts=on", "refcount_bits=64", "lazy_refcounts=off"}) {
    EXPECT_EQ(amend(options), "");
    const Header after = header();
    EXPECT_EQ(after.unknown_fields, before.unknown_fields);
    EXPECT_EQ(after.compatible_features & uint64_t{1} << 40, uint64_t{1} << 40);
    const HeaderExtension* kept = after.find_extension(static_cast<ExtensionType>(0x75757575));
    ASSERT_TRUE(kept);
    EXPECT_EQ(kept->content.size(), size_t{700});
    expect_sound();
  }
  EXPECT_NE(amend("compat=0.10,refcount_bits=16").find("additional header fields"),
            std::string::npos);
}

TEST_F(AmendTest, LazinessIsABitOfTheHeader) {
  make(TestImage());
  EXPECT_EQ(amend("lazy_refcounts=on"), "");
  EXPECT_EQ(header().compatible_features, kCompatibleLazyRefcounts);
  EXPECT_EQ(amend("lazy_refcounts=off"), "");
  EXPECT_EQ(header().compatible_features, 0u);
}

TEST_F(AmendTest, RefusalsNameTheOption) {
  make(TestImage());
  const std::pair<const char*, const char*> cases[] = {
      {"cluster_size=4k", "'cluster_size' is fixed"},
      {"preallocation=full", "'preallocation' is fixed"},
      {"encrypt.state=active", "the image is not encrypted"},
      {"data_file=x", "data_file is only for"},
      {"refcount_bits=3", "power of two"},
      {"compat=2.0", "compat is 0.10 or 1.1"},
      {"bogus=1", "bogus"},
      {"backing_file=other", "rebase"},
      {"compat=0.10,lazy_refcounts=on", "lazy_refcounts=on needs"},
      {"compat=0.10,refcount_bits=8", "needs refcount_bits=16"},
  };
  for (const auto& [options, text] : cases) {
    const std::string refused = amend(options);
    EXPECT_NE(refused.find(text), std::string::npos) << options << ": " << refused;
  }
  EXPECT_EQ(header().version, 3u);
  EXPECT_EQ(amend("backing_file="), "");
}

TEST_F(AmendTest, DamageInTheTablesIsToldWithWhatToDo) {
  make(TestImage(), true);
  poke_snapshot_l1(uint64_t{0x1ff});  // reserved bits
  const std::string refused = amend("compat=0.10");
  EXPECT_NE(refused.find("an L1 entry, 0x1ff, is damaged; run 'ringdisk check"), std::string::npos)
      << refused;
  EXPECT_EQ(header().version, 3u);
}

// The dirty bit would lock everybody out: a check cannot mend what is wrong here.
TEST_F(AmendTest, ASnapshotTableThatLiesWhereNoneMayChangesNothing) {
  make(TestImage(), true);
  poke_snapshot_place(0x400200);
  const std::string refused = amend("compat=0.10");
  EXPECT_NE(refused.find("lies elsewhere than it may"), std::string::npos) << refused;
  EXPECT_FALSE(header().is_dirty());
}

// --- over a backing image a zero cluster of version 3 hides what lies below

struct OverBacking {
  TestImage image;
  std::shared_ptr<sim::SimDisk> backing;
  OpenStorage open;

  OverBacking(OpenStorage open_storage, uint32_t cluster_bits) : open(std::move(open_storage)) {
    image.cluster_bits = cluster_bits;
    image.backing_bytes = kEditedSize.value();
    backing = test_backing_disk(image.backing_bytes);
  }
};

Task<void> zero_some(DeviceQueue& queue) {
  ZeroOptions keeps;
  keeps.may_unmap = false;
  const GuestRange plain(GuestOffset(8192), ByteCount(20480));
  co_await queue.write_zeroes(plain, keeps);
  const std::vector<std::byte> bytes(8192, std::byte{1});
  co_await queue.write(GuestOffset(65536), ConstBuffers(Bytes(bytes)), WriteOptions());
  const GuestRange with_places(GuestOffset(65536), ByteCount(8192));
  co_await queue.write_zeroes(with_places, keeps);
}

Task<void> read_all(DeviceQueue& queue, Content& content) {
  content.resize(kEditedSize.value());
  co_await queue.read(GuestOffset(0), MutableBuffers(MutableBytes(content)));
}

using UseQueue = std::function<Task<void>(DeviceQueue&)>;

Task<void> with_queue(const World& world, const OverBacking& over, bool read_only, UseQueue use) {
  std::unique_ptr<SharedStorage> storage = over.open();
  std::shared_ptr<DeviceNode> device =
      co_await open_test_image(world, over.image, over.backing, std::move(storage), read_only);
  std::unique_ptr<DeviceQueue> queue = co_await device->open_queue(Shard::current());
  Result<void> used = co_await use(*queue).result();
  queue.reset();
  co_await device->close();
  co_await std::move(used);
}

Task<void> make_over_backing(const World& world, const OverBacking& over) {
  std::unique_ptr<SharedStorage> storage = over.open();
  co_await create_test_image(over.image, *storage, kEditedSize);
  co_await storage->node->close();
  const UseQueue zero = &zero_some;
  co_await with_queue(world, over, false, zero);
}

TEST(ZeroExpansionTest, ZerosStayZerosOverABackingImage) {
  for (uint32_t cluster_bits : {9u, 12u}) {
    sim::SimWorld world(9, 1);
    sim::SimDisk disk(sim::SimDiskOptions::file(), 9);
    const OverBacking over([&disk] { return storage_on(disk); }, cluster_bits);
    auto make = [&](Shard&) { return make_over_backing(world.world(), over); };
    ASSERT_TRUE(world.run(make).ok());
    auto snapshot = [&](Shard&) { return take_snapshot(world.world(), storage_on(disk)); };
    ASSERT_TRUE(world.run(snapshot).ok());
    Content before, after;
    const UseQueue read_before = [&](DeviceQueue& queue) { return read_all(queue, before); };
    auto look_before = [&](Shard&) { return with_queue(world.world(), over, true, read_before); };
    ASSERT_TRUE(world.run(look_before).ok());
    EXPECT_EQ(before[8192], std::byte{0});
    EXPECT_NE(before[0], std::byte{0});
    auto amend = [&](Shard&) { return amend_test_image(world.world(), over.open, "compat=0.10"); };
    ASSERT_TRUE(world.run(amend).ok());
    const UseQueue read_after = [&](DeviceQueue& queue) { return read_all(queue, after); };
    auto look_after = [&](Shard&) { return with_queue(world.world(), over, true, read_after); };
    ASSERT_TRUE(world.run(look_after).ok());
    EXPECT_TRUE(after == before);
    auto check = [&](Shard&) {
      return check_test_image(world.world(), over.image, storage_on(disk));
    };
    EXPECT_TRUE(world.run(check).ok());
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
