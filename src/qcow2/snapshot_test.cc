// SPDX-License-Identifier: Apache-2.0
// Internal snapshots on the simulator: images of every geometry with random content, snapshots
// created, applied and deleted in random order; the power failing anywhere in an edit; every
// request of an edit failing once.
#include <gtest/gtest.h>

#include <charconv>
#include <map>
#include <set>

#include "qcow2/image_fixture_test.h"
#include "qcow2/snapshots.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

using Action = SnapshotEdit::Action;
using Content = std::vector<std::byte>;

constexpr ByteCount kSize(512 << 10);

SnapshotEdit edit_of(Action action, std::string name) {
  SnapshotEdit edit;
  edit.action = action;
  edit.name = std::move(name);
  edit.date_seconds = 1'700'000'000;
  return edit;
}

TestImage drawn_image(uint64_t seed) {
  Random random(seed);
  TestImage image;
  image.version = random.chance(25) ? 2 : 3;
  image.cluster_bits = static_cast<uint32_t>(9 + random.below(8));
  image.refcount_order = static_cast<uint32_t>(3 + random.below(4));
  return image;
}

std::unique_ptr<SharedStorage> storage_on(sim::SimDisk& disk) {
  return std::make_unique<SharedStorage>(
      std::make_unique<sim::SimStorageNode>(disk, "disk.qcow2", 1));
}

Task<void> edit_image(const World& world, std::unique_ptr<SharedStorage> storage,
                      SnapshotEdit edit) {
  world.diagnostics.add_node("disk.qcow2");  // the storage's id, if it is the first
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  co_await edit_snapshots(graph, std::move(storage), std::move(edit));
}

// The whole disk, or the whole of a snapshot.
Task<Content> read_content(const World& world, std::unique_ptr<SharedStorage> storage,
                           std::string snapshot) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  OpenMode mode;
  mode.read_only = true;
  Options options;
  if (!snapshot.empty()) options.set("snapshot", std::move(snapshot));
  FormatOpening opening{world, graph, std::move(storage), "", mode, std::move(options)};
  FormatDriver driver = qcow2_driver();
  OpenedFormat opened = co_await driver.open(std::move(opening));
  DeviceNode device("disk.qcow2", 1, std::move(opened.node), nullptr);
  Content content(device.size().value());
  std::unique_ptr<DeviceQueue> queue = co_await device.open_queue(Shard::current());
  Result<void> read =
      co_await queue->read(GuestOffset(0), MutableBuffers(MutableBytes(content))).result();
  queue.reset();
  co_await device.close();
  co_await std::move(read);
  co_return std::move(content);
}

// Random writes and discards, to the image and to `content` alike; discards read as zeros here
// (there is no backing image).
Task<void> change_content(DeviceQueue& queue, uint64_t seed, Content& content) {
  Random random(seed);
  for (int i = 0; i < 12; ++i) {
    const uint64_t at = random.below(content.size() / 512) * 512;
    const uint64_t length = std::min<uint64_t>(512 * (1 + random.below(80)), content.size() - at);
    MutableBytes part = MutableBytes(content).subspan(at, length);
    if (random.chance(20)) {
      co_await queue.write_zeroes(GuestRange(GuestOffset(at), ByteCount(length)), ZeroOptions());
      fill_zero(part);
      continue;
    }
    for (std::byte& one : part) one = static_cast<std::byte>(random.next());
    co_await queue.write(GuestOffset(at), ConstBuffers(Bytes(part)), WriteOptions());
  }
}

Task<void> write_image(const World& world, TestImage image, std::unique_ptr<SharedStorage> storage,
                       uint64_t seed, Content& content) {
  std::shared_ptr<DeviceNode> device =
      co_await open_test_image(world, image, nullptr, std::move(storage), false);
  std::unique_ptr<DeviceQueue> queue = co_await device->open_queue(Shard::current());
  Result<void> changed = co_await change_content(*queue, seed, content).result();
  queue.reset();
  co_await device->close();
  co_await std::move(changed);
}

// An image with its expected content and that of its snapshots.
class SnapshotModel {
 public:
  SnapshotModel(sim::SimWorld& world, TestImage image, uint64_t seed)
      : world_(world), image_(image), random_(seed), disk_(sim::SimDiskOptions::file(), seed) {
    disk_.poke(0, encode_test_image(image, kSize));
    content_.resize(kSize.value());
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
    SnapshotModel model(world, drawn_image(seed), seed);
    for (int i = 0; i < 16 && !::testing::Test::HasFailure(); ++i) model.step();
    model.remove_all();
  });
}

TEST(SnapshotTest, WhatIsNotThereIsNamed) {
  sim::SimWorld world(1, 1);
  sim::SimDisk disk(sim::SimDiskOptions::file(), 1);
  disk.poke(0, encode_test_image(TestImage(), kSize));
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
  disk.poke(0, encode_test_image(image, kSize));
  Content content(kSize.value());
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

TEST(SnapshotTest, AFullDeviceLeavesTheImageAsItWas) {
  sim::SimWorld world(1, 1);
  TestImage image;
  Content content(kSize.value());
  const std::vector<std::byte> tables = encode_test_image(image, kSize);
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

// --- crashes and faults

// An image with a snapshot "old" whose content differs from the disk's.
struct Prepared {
  Content old_content, content;
};

Task<void> prepare_image(const World& world, TestImage image, const sim::OpenStorages& open,
                         uint64_t seed, Prepared& prepared) {
  std::unique_ptr<SharedStorage> storage = std::move(open().front());
  co_await create_test_image(image, *storage, kSize);
  co_await storage->node->close();
  prepared.content.assign(kSize.value(), std::byte{0});
  std::unique_ptr<SharedStorage> first = std::move(open().front());
  co_await write_image(world, image, std::move(first), seed, prepared.content);
  prepared.old_content = prepared.content;
  std::unique_ptr<SharedStorage> second = std::move(open().front());
  const SnapshotEdit edit = edit_of(Action::kCreate, "old");
  co_await edit_image(world, std::move(second), edit);
  std::unique_ptr<SharedStorage> third = std::move(open().front());
  co_await write_image(world, image, std::move(third), seed + 1000, prepared.content);
}

constexpr std::string_view kLeaked = "Leaked cluster ";
constexpr std::string_view kWrongFlag = "ERROR OFLAG_COPIED";

// The number behind `mark` in a message of the check, which has one there.
uint64_t number_after(const std::string& message, std::string_view mark, int base) {
  const size_t at = message.find(mark);
  EXPECT_NE(at, std::string::npos) << message;
  if (at == std::string::npos) return 0;
  uint64_t number = 0;
  const char* begin = message.data() + at + mark.size();
  const auto parsed = std::from_chars(begin, message.data() + message.size(), number, base);
  EXPECT_EQ(parsed.ec, std::errc()) << message;
  return number;
}

// Clusters whose refcount is higher than what points at them.
std::set<uint64_t> clusters_counted_too_high(const CheckReport& report) {
  std::set<uint64_t> clusters;
  for (const std::string& message : report.messages) {
    if (message.starts_with(kLeaked)) clusters.insert(number_after(message, kLeaked, 10));
  }
  return clusters;
}

// What an interrupted edit may leave: leaks, refcounts too high, and flags that do not go with
// them: COPIED not set where it could be, or still set where the refcount is too high already. A
// flag on a cluster that two tables share would let one overwrite the other's.
bool is_permitted(const std::string& message, const std::set<uint64_t>& too_high,
                  uint32_t cluster_bits) {
  if (message.starts_with(kLeaked)) return true;
  if (!message.starts_with(kWrongFlag)) return false;
  const uint64_t entry = number_after(message, "_entry=", 16);
  const uint64_t refcount = number_after(message, "refcount=", 10);
  if ((entry & kCopied) == 0) return refcount == 1;
  return too_high.contains((entry & kOffsetMask) >> cluster_bits);
}

Task<void> expect_permitted_damage(const World& world, TestImage image,
                                   std::unique_ptr<SharedStorage> storage) {
  const std::function<void(CheckProgress)> no_progress;
  std::optional<CheckReport> report = co_await check_image(world, *storage, no_progress);
  co_await storage->node->close();
  CHECK(report.has_value());
  EXPECT_EQ(report->check_errors, uint64_t{0});
  EXPECT_FALSE(report->messages_cut);
  const std::set<uint64_t> too_high = clusters_counted_too_high(*report);
  for (const std::string& message : report->messages) {
    EXPECT_TRUE(is_permitted(message, too_high, image.cluster_bits)) << message;
  }
}

Task<void> expect_one_of(const World& world, std::unique_ptr<SharedStorage> storage,
                         std::string snapshot, const Content& one, const Content& other) {
  Content content = co_await read_content(world, std::move(storage), std::move(snapshot));
  EXPECT_TRUE(content == one || content == other);
}

class SnapshotCrash final : public sim::CrashScenario {
 public:
  SnapshotCrash(TestImage image, Action action, uint64_t seed)
      : image_(image), action_(action), seed_(seed) {}

  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    return prepare_image(world, image_, open, seed_, prepared_);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    const SnapshotEdit edit = edit_of(action_, action_ == Action::kCreate ? "new" : "old");
    return edit_image(world, std::move(storage), edit);
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    return verify_all(world, open);
  }

 private:
  Task<void> verify_all(const World& world, const sim::OpenStorages& open) {
    std::unique_ptr<SharedStorage> first = std::move(open().front());
    co_await expect_permitted_damage(world, image_, std::move(first));
    const Content& after = action_ == Action::kApply ? prepared_.old_content : prepared_.content;
    std::unique_ptr<SharedStorage> second = std::move(open().front());
    co_await expect_one_of(world, std::move(second), "", prepared_.content, after);
    if (action_ == Action::kDelete) co_return;
    std::unique_ptr<SharedStorage> third = std::move(open().front());
    co_await expect_one_of(world, std::move(third), "old", prepared_.old_content,
                           prepared_.old_content);
  }

  const TestImage image_;
  const Action action_;
  const uint64_t seed_;
  Prepared prepared_;
};

TEST(SnapshotCrashTest, ACrashInAnEditLeavesItDoneOrNotDone) {
  for (Action action : {Action::kCreate, Action::kApply, Action::kDelete}) {
    sim::for_each_seed(8, [action](uint64_t seed) {
      SnapshotCrash scenario(drawn_image(seed), action, seed);
      sim::CrashSweepOptions options;
      options.shards = 1;
      options.points = 40;
      EXPECT_GT(run_crash_sweep(scenario, seed, options), 0u);
    });
  }
}

// Whether a failure was injected into the edit.
bool run_edit_with_fault(TestImage image, Action action, uint64_t seed, uint64_t n) {
  sim::SimWorld world(seed, 1);
  sim::SimDisk disk(sim::SimDiskOptions::file(), seed);
  Prepared prepared;
  const sim::OpenStorages open = [&disk] {
    std::vector<std::unique_ptr<SharedStorage>> storages;
    storages.push_back(storage_on(disk));
    return storages;
  };
  auto prepare = [&](Shard&) { return prepare_image(world.world(), image, open, seed, prepared); };
  EXPECT_TRUE(world.run(prepare).ok());
  sim::SimFaults faults;
  faults.fail_at = n;
  disk.set_faults(&faults);
  const SnapshotEdit edit = edit_of(action, action == Action::kCreate ? "new" : "old");
  auto work = [&](Shard&) { return edit_image(world.world(), storage_on(disk), edit); };
  const Result<void> edited = world.run(work);
  disk.set_faults(nullptr);
  // A discard that fails is a hint that was not taken; every other failure is told.
  if (!edited.ok()) EXPECT_EQ(edited.error().errno_value, EIO);
  const Content& after = action == Action::kApply ? prepared.old_content : prepared.content;
  auto verify = [&](Shard&) -> Task<void> {
    return expect_permitted_damage(world.world(), image, storage_on(disk));
  };
  EXPECT_TRUE(world.run(verify).ok());
  auto look = [&](Shard&) -> Task<void> {
    return expect_one_of(world.world(), storage_on(disk), "", prepared.content, after);
  };
  EXPECT_TRUE(world.run(look).ok());
  if (faults.failed == 0) EXPECT_TRUE(edited.ok());
  return faults.failed != 0;
}

TEST(SnapshotFaultTest, EveryFailureIsToldAndLosesNothing) {
  for (Action action : {Action::kCreate, Action::kApply, Action::kDelete}) {
    sim::for_each_seed(2, [action](uint64_t seed) {
      TestImage image = drawn_image(seed);
      image.cluster_bits = 12;
      auto run = [&](uint64_t n) { return run_edit_with_fault(image, action, seed, n); };
      EXPECT_GT(sim::sweep_faults(2000, run), 10u);
    });
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
