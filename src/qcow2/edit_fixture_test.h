// SPDX-License-Identifier: Apache-2.0
// For tests of changes of a whole image (snapshots, size): images of any geometry with random
// content, read back whole, and what an interrupted change may leave behind.
#pragma once

#include <charconv>
#include <set>

#include "qcow2/image_fixture_test.h"
#include "sim/crash_sweep.h"

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

inline std::unique_ptr<SharedStorage> storage_on(sim::SimDisk& disk) {
  return std::make_unique<SharedStorage>(
      std::make_unique<sim::SimStorageNode>(disk, "disk.qcow2", 1));
}

// The whole disk, or the whole of a snapshot.
inline Task<Content> read_content(const World& world, std::unique_ptr<SharedStorage> storage,
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

// Clusters whose refcount is higher than what points at them.
inline std::set<uint64_t> clusters_counted_too_high(const CheckReport& report) {
  std::set<uint64_t> clusters;
  for (const std::string& message : report.messages) {
    if (message.starts_with(kLeaked)) clusters.insert(number_after(message, kLeaked, 10));
  }
  return clusters;
}

// What an interrupted edit may leave: leaks, refcounts too high, and flags that do not go with
// them: COPIED not set where it could be, or still set where the refcount is too high already. A
// flag on a cluster that two tables share would let one overwrite the other's.
inline bool is_permitted(const std::string& message, const std::set<uint64_t>& too_high,
                         uint32_t cluster_bits) {
  if (message.starts_with(kLeaked)) return true;
  if (!message.starts_with(kWrongFlag)) return false;
  const uint64_t entry = number_after(message, "_entry=", 16);
  const uint64_t refcount = number_after(message, "refcount=", 10);
  if ((entry & kCopied) == 0) return refcount == 1;
  return too_high.contains((entry & kOffsetMask) >> cluster_bits);
}

inline Task<void> expect_permitted_damage(const World& world, TestImage image,
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
    co_await expect_permitted_damage(world, image, std::move(checked));
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

}  // namespace ringdisk::qcow2
