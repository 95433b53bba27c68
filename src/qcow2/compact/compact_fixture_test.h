// SPDX-License-Identifier: Apache-2.0
// For tests of compaction: images full of holes, with what their disk and their snapshots hold.
#pragma once

#include <map>

#include "qcow2/bitmaps/bitmap_fixture_test.h"
#include "qcow2/compact/compact.h"
#include "qcow2/describe.h"
#include "qcow2/edit/edit_fixture_test.h"
#include "qcow2/edit/resize.h"
#include "qcow2/edit/snapshots.h"

namespace ringdisk::qcow2 {

// What is compacted, and what it must still be afterwards.
struct HolesModel {
  Content content;
  std::map<std::string, Content> snapshots;
  SeenBitmaps bitmaps;
};

struct HolesOptions {
  ByteCount size = kEditedSize;
  bool filled = false;  // all of the disk is written first
  int rounds = 3;       // of writes, zeroes and perhaps a snapshot
  bool snapshots = true;
  bool compressed = false;
  bool rebuilt = false;  // refcount table and blocks lie behind everything, as a repair leaves them
  bool scattered = false;  // every second cluster is given up, no two side by side
  ByteCount grown_size;  // in the end, which puts a longer L1 table behind everything; 0: as it is
  bool bitmaps = false;  // enabled and disabled ones, with names that make a long directory
};

inline std::shared_ptr<sim::SimDisk> backing_of(const TestImage& image) {
  if (image.backing_bytes == 0) return nullptr;
  return test_backing_disk(image.backing_bytes);
}

inline Content initial_content(const TestImage& image, ByteCount size) {
  Content content(size.value());
  for (uint64_t sector = 0; (sector + 1) * sim::kSectorBytes <= image.backing_bytes; ++sector) {
    const sim::Sector bytes = sim::stale_sector(sector);
    copy_bytes(bytes, MutableBytes(content).subspan(sector * sim::kSectorBytes, bytes.size()));
  }
  return content;
}

inline Task<CompactReport> compact_test_image(const World& world,
                                              std::unique_ptr<SharedStorage> storage,
                                              CompactLimits limits, CancelToken cancel) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  CompactRequest request;
  request.cancel = cancel;
  co_return co_await compact_image(graph, std::move(storage), limits, std::move(request),
                                   &toy_encryption());
}

inline Task<void> edit_test_snapshot(const World& world, std::unique_ptr<SharedStorage> storage,
                                     SnapshotEdit::Action action, std::string name) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  SnapshotEdit edit;
  edit.action = action;
  edit.name = std::move(name);
  co_await edit_snapshots(graph, std::move(storage), std::move(edit));
}

// One whole cluster, most of them compressible.
inline Task<void> write_packed(DeviceQueue& queue, Random& random, Content& content) {
  const uint64_t cluster = queue.node().format().limits().cluster_size.value();
  const uint64_t at = random.below((content.size() + cluster - 1) / cluster) * cluster;
  const uint64_t length = std::min<uint64_t>(cluster, content.size() - at);
  MutableBytes part = MutableBytes(content).subspan(at, length);
  const uint64_t noise = length * (1 + random.below(8)) / 8;
  for (uint64_t i = 0; i < length; ++i) {
    part[i] = i < noise ? static_cast<std::byte>(random.next()) : std::byte{7};
  }
  co_await queue.write_compressed(GuestOffset(at), Bytes(part), CompressOptions());
}

inline Task<void> make_holes(DeviceQueue& queue, Random& random, bool compressed,
                             Content& content) {
  for (int i = 0; i < 24; ++i) {
    const uint64_t at = random.below(content.size() / 512) * 512;
    const uint64_t length = std::min<uint64_t>(512 * (1 + random.below(96)), content.size() - at);
    MutableBytes part = MutableBytes(content).subspan(at, length);
    if (compressed && random.chance(60)) {
      co_await write_packed(queue, random, content);
    } else if (random.chance(45)) {
      co_await queue.write_zeroes(GuestRange(GuestOffset(at), ByteCount(length)), ZeroOptions());
      fill_zero(part);
    } else {
      for (std::byte& one : part) one = static_cast<std::byte>(random.next());
      co_await queue.write(GuestOffset(at), ConstBuffers(Bytes(part)), WriteOptions());
    }
  }
}

inline Task<void> scatter_holes(DeviceQueue& queue, Content& content) {
  const uint64_t cluster = queue.node().format().limits().cluster_size.value();
  for (uint64_t at = 0; at + cluster <= content.size(); at += 2 * cluster) {
    co_await queue.discard(GuestRange(GuestOffset(at), ByteCount(cluster)));
    fill_zero(MutableBytes(content).subspan(at, cluster));
  }
}

inline Task<void> change_holes(const World& world, TestImage image,
                               std::unique_ptr<SharedStorage> storage, uint64_t seed,
                               HolesOptions options, Content& content) {
  Random random(seed);
  const std::shared_ptr<sim::SimDisk> backing = backing_of(image);
  std::shared_ptr<DeviceNode> device =
      co_await open_test_image(world, image, backing, std::move(storage), false);
  std::unique_ptr<DeviceQueue> queue = co_await device->open_queue(Shard::current());
  if (options.filled) {
    for (std::byte& one : content) one = static_cast<std::byte>(random.next());
    co_await queue->write(GuestOffset(0), ConstBuffers(Bytes(content)), WriteOptions());
  }
  Result<void> changed;
  if (options.scattered) {
    changed = co_await scatter_holes(*queue, content).result();
  } else {
    changed = co_await make_holes(*queue, random, options.compressed, content).result();
  }
  queue.reset();
  co_await device->close();
  co_await std::move(changed);
}

inline std::string bitmap_name(int number) {
  return "b" + std::to_string(number) + std::string(150, '-');
}

// Three more, and the one before them goes, so that the directory moves and leaves holes.
inline Task<void> change_bitmaps(const World& world, const sim::OpenStorages& open, int round) {
  using Action = BitmapEdit::Action;
  std::vector<BitmapEdit> edits;
  const int first = 3 * round;
  if (round != 0) edits.push_back(bitmap_edit(Action::kRemove, bitmap_name(first - 1)));
  edits.push_back(add_bitmap(bitmap_name(first)));
  edits.push_back(add_bitmap(bitmap_name(first + 1), 512));
  edits.push_back(add_bitmap(bitmap_name(first + 2)));
  edits.push_back(bitmap_edit(Action::kDisable, bitmap_name(first)));
  std::unique_ptr<SharedStorage> storage = std::move(open().front());
  co_await edit_test_bitmaps(world, std::move(storage), edits);
}

inline Task<void> grow_test_image(const World& world, std::unique_ptr<SharedStorage> storage,
                                  ByteCount size) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  co_await resize_image(graph, std::move(storage), size);
}

// The repair of a refcount table that is damaged in its first entry.
inline Task<void> rebuild_refcounts(const World& world, std::unique_ptr<SharedStorage> storage) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*storage, Shard::current());
  const Header header = co_await read_header(*access, world.diagnostics);
  std::vector<std::byte> entry(8);
  store_be64(&entry[0], 1);
  co_await access->write(header.refcount_table, ConstBuffers(Bytes(entry)));
  access.reset();
  CheckOptions options;
  options.repair = CheckRepair::kAll;
  const CancelToken never;
  const std::function<void(CheckProgress)> no_progress;
  Result<std::optional<CheckReport>> repaired =
      co_await check_image(world, *storage, options, never, no_progress).result();
  co_await storage->node->close();
  const std::optional<CheckReport> report = co_await std::move(repaired);
  EXPECT_EQ(report->corruptions, uint64_t{0});
}

// Creates the image, too.
inline Task<void> make_image_with_holes(const World& world, TestImage image,
                                        const sim::OpenStorages& open, uint64_t seed,
                                        HolesOptions options, HolesModel& model) {
  std::unique_ptr<SharedStorage> storage = std::move(open().front());
  co_await create_test_image(image, *storage, options.size);
  co_await storage->node->close();
  model.content = initial_content(image, options.size);
  model.snapshots.clear();
  Random random(seed);
  for (int round = 0; round < options.rounds; ++round) {
    std::unique_ptr<SharedStorage> changed = std::move(open().front());
    const uint64_t drawn = random.next();
    if (options.bitmaps) co_await change_bitmaps(world, open, round);
    co_await change_holes(world, image, std::move(changed), drawn, options, model.content);
    options.filled = false;
    if (!options.snapshots || round + 1 == options.rounds) continue;
    const std::string name = "s" + std::to_string(round);
    std::unique_ptr<SharedStorage> edited = std::move(open().front());
    co_await edit_test_snapshot(world, std::move(edited), SnapshotEdit::Action::kCreate, name);
    model.snapshots[name] = model.content;
    if (round == 0 || random.chance(50)) continue;
    std::unique_ptr<SharedStorage> again = std::move(open().front());
    co_await edit_test_snapshot(world, std::move(again), SnapshotEdit::Action::kDelete, "s0");
    model.snapshots.erase("s0");
  }
  if (!options.grown_size.is_zero()) {
    co_await grow_test_image(world, std::move(open().front()), options.grown_size);
    model.content.resize(options.grown_size.value());
  }
  std::unique_ptr<SharedStorage> seen = std::move(open().front());
  model.bitmaps = co_await read_bitmaps(world, std::move(seen));
  if (!options.rebuilt) co_return;
  std::unique_ptr<SharedStorage> damaged = std::move(open().front());
  co_await rebuild_refcounts(world, std::move(damaged));
}

// The disk, or a snapshot of it.
inline Task<Content> read_compacted(const World& world, TestImage image,
                                    std::unique_ptr<SharedStorage> storage, std::string snapshot) {
  const std::shared_ptr<sim::SimDisk> backing = backing_of(image);
  std::shared_ptr<DeviceNode> below;
  if (backing) below = test_backing(*backing);
  Content content =
      co_await read_content_over(world, std::move(storage), std::move(snapshot), std::move(below));
  co_return std::move(content);
}

// Whatever the image holds is what the model says.
inline Task<void> expect_holes_model(const World& world, TestImage image,
                                     const sim::OpenStorages& open, const HolesModel& model) {
  std::unique_ptr<SharedStorage> storage = std::move(open().front());
  const Content content = co_await read_compacted(world, image, std::move(storage), "");
  EXPECT_TRUE(content == model.content) << "the disk holds something else";
  std::unique_ptr<SharedStorage> seen = std::move(open().front());
  const SeenBitmaps bitmaps = co_await read_bitmaps(world, std::move(seen));
  EXPECT_TRUE(bitmaps.dirty == model.bitmaps.dirty) << "the bitmaps say something else";
  EXPECT_EQ(bitmaps.unusable, model.bitmaps.unusable);
  for (const auto& [name, wanted] : model.snapshots) {
    std::unique_ptr<SharedStorage> again = std::move(open().front());
    const Content held = co_await read_compacted(world, image, std::move(again), name);
    EXPECT_TRUE(held == wanted) << "snapshot '" << name << "' holds something else";
  }
}

inline sim::OpenStorages opener_of(sim::SimDisk& disk) {
  return [&disk] {
    std::vector<std::unique_ptr<SharedStorage>> storages;
    storages.push_back(storage_on(disk));
    return storages;
  };
}

// Clusters whose refcount is not zero, as the disk has it.
inline uint64_t used_clusters(const sim::SimDisk& disk) {
  Diagnostics diagnostics;
  std::vector<std::byte> front(std::min<uint64_t>(disk.size(), kHeaderBytesMax));
  disk.peek(0, front);
  const Header header = parse_header(front, diagnostics, 0).value();
  const Geometry geometry = header.geometry();
  std::vector<std::byte> table(uint64_t{header.refcount_table_clusters} << header.cluster_bits);
  disk.peek(header.refcount_table.value(), table);
  uint64_t used = 0;
  for (size_t i = 0; i < table.size(); i += kEntryBytes) {
    const uint64_t at = load_be64(&table[i]);
    if (at == 0) continue;
    std::vector<std::byte> block(geometry.cluster_size());
    disk.peek(at, block);
    for (uint64_t k = 0; k < geometry.refcount_block_entries(); ++k) {
      if (load_refcount(block, header.refcount_order, k) != 0) ++used;
    }
  }
  return used;
}

}  // namespace ringdisk::qcow2
