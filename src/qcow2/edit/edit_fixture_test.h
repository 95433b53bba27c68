// SPDX-License-Identifier: Apache-2.0
// For tests of changes of a whole image (snapshots, size): images of any geometry with random
// content, read back whole; what an interrupted change may leave behind; and TestedEdit, a change
// as the sweeps want it: the power failing anywhere in it, every request of it failing once.
#pragma once

#include <charconv>

#include "qcow2/image_fixture_test.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {

using Content = std::vector<std::byte>;

inline constexpr ByteCount kEditedSize(512 << 10);

inline TestImage drawn_edited_image(uint64_t seed) {
  Random random(seed);
  TestImage image;
  image.version = random.chance(25) ? 2 : 3;
  image.cluster_bits = static_cast<uint32_t>(9 + random.below(8));
  image.refcount_order = static_cast<uint32_t>(3 + random.below(4));
  return image;
}

// Most of those that can have subclusters have them.
inline TestImage drawn_edited_image_or_extended(uint64_t seed) {
  TestImage image = drawn_edited_image(seed);
  const bool can_extend = image.version >= 3 && image.cluster_bits >= kExtendedClusterBitsMin;
  image.extended_l2 = can_extend && seed % 4 != 0;
  return image;
}

inline std::unique_ptr<SharedStorage> storage_on(sim::SimDisk& disk) {
  return std::make_unique<SharedStorage>(
      std::make_unique<sim::SimStorageNode>(disk, "disk.qcow2", 1));
}

// The whole disk, or the whole of a snapshot, over `below`, which may be null.
inline Task<Content> read_content_over(const World& world, std::unique_ptr<SharedStorage> storage,
                                       std::string snapshot, std::shared_ptr<DeviceNode> below) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  OpenMode mode;
  mode.read_only = true;
  Options options;
  if (!snapshot.empty()) options.set("snapshot", std::move(snapshot));
  FormatOpening opening{world, graph, std::move(storage), "", mode, std::move(options)};
  FormatDriver driver = qcow2_driver(&toy_encryption());
  OpenedFormat opened = co_await driver.open(std::move(opening));
  DeviceNode device("disk.qcow2", 1, std::move(opened.node), std::move(below));
  Content content(device.size().value());
  std::unique_ptr<DeviceQueue> queue = co_await device.open_queue(Shard::current());
  Result<void> read =
      co_await queue->read(GuestOffset(0), MutableBuffers(MutableBytes(content))).result();
  queue.reset();
  co_await device.close();
  co_await std::move(read);
  co_return std::move(content);
}

inline Task<Content> read_content(const World& world, std::unique_ptr<SharedStorage> storage,
                                  std::string snapshot) {
  return read_content_over(world, std::move(storage), std::move(snapshot), nullptr);
}

// Random writes and discards, to the image and to `content` alike; discards read as zeros here
// (there is no backing image).
inline Task<void> change_content(DeviceQueue& queue, uint64_t seed, Content& content) {
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

inline Task<void> write_image(const World& world, TestImage image,
                              std::unique_ptr<SharedStorage> storage, uint64_t seed,
                              Content& content) {
  std::shared_ptr<DeviceNode> device =
      co_await open_test_image(world, image, nullptr, std::move(storage), false);
  std::unique_ptr<DeviceQueue> queue = co_await device->open_queue(Shard::current());
  Result<void> changed = co_await change_content(*queue, seed, content).result();
  queue.reset();
  co_await device->close();
  co_await std::move(changed);
}

inline constexpr std::string_view kLeaked = "Leaked cluster ";
inline constexpr std::string_view kWrongFlag = "ERROR OFLAG_COPIED";

// The number behind `mark` in a message of the check, which has one there.
inline uint64_t number_after(const std::string& message, std::string_view mark, int base) {
  const size_t at = message.find(mark);
  EXPECT_NE(at, std::string::npos) << message;
  if (at == std::string::npos) return 0;
  uint64_t number = 0;
  const char* begin = message.data() + at + mark.size();
  const auto parsed = std::from_chars(begin, message.data() + message.size(), number, base);
  EXPECT_EQ(parsed.ec, std::errc()) << message;
  return number;
}

// What an interrupted edit may leave: leaks, refcounts too high, and COPIED not set where it could
// be. Never COPIED where the refcount is above one: whoever trusts that flag overwrites, once
// another table points there, what that one holds.
inline bool is_permitted(const std::string& message) {
  if (message.starts_with(kLeaked)) return true;
  if (!message.starts_with(kWrongFlag)) return false;
  const uint64_t entry = number_after(message, "_entry=", 16);
  return (entry & kCopied) == 0 && number_after(message, "refcount=", 10) == 1;
}

inline Task<void> expect_permitted_damage(const World& world,
                                          std::unique_ptr<SharedStorage> storage) {
  const std::function<void(CheckProgress)> no_progress;
  std::optional<CheckReport> report = co_await check_image(world, *storage, no_progress);
  co_await storage->node->close();
  CHECK(report.has_value());
  EXPECT_EQ(report->check_errors, uint64_t{0});
  EXPECT_FALSE(report->messages_cut);
  for (const std::string& message : report->messages) {
    EXPECT_TRUE(is_permitted(message)) << message;
  }
}

// An open for writing repairs what the dirty bit tells of; version 2 has none, so what it may have
// been left with stays.
inline Task<void> expect_repaired_at_open(const World& world, TestImage image,
                                          const sim::OpenStorages& open) {
  std::unique_ptr<SharedStorage> opened = std::move(open().front());
  std::shared_ptr<DeviceNode> device =
      co_await open_test_image(world, image, nullptr, std::move(opened), false);
  std::unique_ptr<DeviceQueue> queue = co_await device->open_queue(Shard::current());
  queue.reset();
  co_await device->close();
  std::unique_ptr<SharedStorage> checked = std::move(open().front());
  if (image.version < 3) {
    co_await expect_permitted_damage(world, std::move(checked));
    co_return;
  }
  image.leaks_allowed = true;
  co_await check_test_image(world, image, std::move(checked));
}

inline Task<void> expect_one_of(const World& world, std::unique_ptr<SharedStorage> storage,
                                std::string snapshot, const Content& one, const Content& other) {
  Content content = co_await read_content(world, std::move(storage), std::move(snapshot));
  EXPECT_TRUE(content == one || content == other);
}

// --- sweeps

class TestedEdit {
 public:
  explicit TestedEdit(TestImage test_image) : image(test_image) {}
  virtual ~TestedEdit() = default;

  // Makes the image; fills `before` and `after`. May be called again.
  virtual Task<void> prepare(const World& world, sim::OpenStorages open) = 0;
  virtual Task<void> edit(const World& world, std::unique_ptr<SharedStorage> storage) = 0;
  // What has to hold besides, done or not done.
  virtual Task<void> expect_rest(const World&, sim::OpenStorages) { co_return; }

  const TestImage image;
  Content before, after;  // of the disk
};

class EditCrash final : public sim::CrashScenario {
 public:
  explicit EditCrash(TestedEdit& edit) : edit_(edit) {}

  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    return edit_.prepare(world, open);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    return edit_.edit(world, std::move(open().front()));
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    return verify_all(world, open);
  }

 private:
  Task<void> verify_all(const World& world, const sim::OpenStorages& open) {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    co_await expect_permitted_damage(world, std::move(storage));
    co_await expect_contents(world, open);
    co_await expect_repaired_at_open(world, edit_.image, open);
    co_await expect_contents(world, open);
  }
  Task<void> expect_contents(const World& world, const sim::OpenStorages& open) {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    co_await expect_one_of(world, std::move(storage), "", edit_.before, edit_.after);
    co_await edit_.expect_rest(world, open);
  }

  TestedEdit& edit_;
};

inline void expect_done_or_not_done(TestedEdit& edit, uint64_t seed) {
  EditCrash scenario(edit);
  sim::CrashSweepOptions options;
  options.shards = 1 + seed % 2;  // an edit uses them all
  options.points = 40;
  EXPECT_GT(run_crash_sweep(scenario, seed, options), 0u);
}

// Whether a failure was injected into the edit.
inline bool run_edit_with_fault(TestedEdit& edit, uint64_t seed, uint64_t n) {
  sim::SimWorld world(seed, 1 + seed % 2);
  sim::SimDisk disk(sim::SimDiskOptions::file(), seed);
  const sim::OpenStorages open = [&disk] {
    std::vector<std::unique_ptr<SharedStorage>> storages;
    storages.push_back(storage_on(disk));
    return storages;
  };
  auto prepare = [&](Shard&) { return edit.prepare(world.world(), open); };
  EXPECT_TRUE(world.run(prepare).ok());
  sim::SimFaults faults;
  faults.fail_at = n;
  disk.set_faults(&faults);
  auto work = [&](Shard&) { return edit.edit(world.world(), storage_on(disk)); };
  const Result<void> edited = world.run(work);
  disk.set_faults(nullptr);
  // A discard that fails is a hint that was not taken; every other failure is told.
  if (!edited.ok()) {
    EXPECT_EQ(edited.error().errno_value, EIO);
  }
  if (faults.failed == 0) {
    EXPECT_TRUE(edited.ok());
  }
  auto verify = [&](Shard&) { return expect_permitted_damage(world.world(), storage_on(disk)); };
  EXPECT_TRUE(world.run(verify).ok());
  const Content& untouched = edited.ok() ? edit.after : edit.before;
  auto look = [&](Shard&) {
    return expect_one_of(world.world(), storage_on(disk), "", untouched, edit.after);
  };
  EXPECT_TRUE(world.run(look).ok());
  auto look_at_rest = [&](Shard&) { return edit.expect_rest(world.world(), open); };
  EXPECT_TRUE(world.run(look_at_rest).ok());
  return faults.failed != 0;
}

inline void expect_failures_told(TestedEdit& edit, uint64_t seed) {
  auto run = [&](uint64_t n) { return run_edit_with_fault(edit, seed, n); };
  EXPECT_GT(sim::sweep_faults(2000, run), 10u);
}

}  // namespace ringdisk::qcow2
