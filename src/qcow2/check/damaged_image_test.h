// SPDX-License-Identifier: Apache-2.0
// For tests: an image on a simulated disk with content of its own in some of its guest clusters,
// whose tables a test damages by hand; checked and repaired. The layout is made by writing through
// the format itself, so entries are found by following the tables.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/endian.h"
#include "qcow2/image_fixture_test.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {

// The tables of an image on a disk, read and changed past everything else.
class DamagedTables {
 public:
  DamagedTables(sim::SimDisk& disk, const TestImage& image)
      : disk_(disk), geometry_(image.cluster_bits, image.refcount_order, image.extended_l2) {}

  const Geometry& geometry() const { return geometry_; }
  uint64_t get(uint64_t at) const { return entry_on(disk_, at); }
  void put(uint64_t at, uint64_t value) { put_entry_on(disk_, at, value); }
  void poke(uint64_t at, Bytes bytes) { disk_.poke(at, bytes); }
  uint64_t refcount_table() const { return get(kRefcountTableFieldsAt); }
  uint64_t l1_table() const { return get(40); }
  uint64_t snapshot_table() const { return get(64); }
  uint64_t l2_table(uint64_t guest) const {
    return get(l1_table() + geometry_.l1_index(ClusterIndex(guest)) * 8) & kOffsetMask;
  }
  uint64_t l2_entry_at(uint64_t guest) const {
    return l2_table(guest) + geometry_.l2_index(ClusterIndex(guest)) * geometry_.l2_entry_bytes();
  }
  uint64_t l2_entry(uint64_t guest) const { return get(l2_entry_at(guest)); }
  void set_l2_entry(uint64_t guest, uint64_t raw) { put(l2_entry_at(guest), raw); }
  // Of extended entries.
  uint64_t bitmap(uint64_t guest) const { return get(l2_entry_at(guest) + 8); }
  void set_bitmap(uint64_t guest, uint64_t bits) { put(l2_entry_at(guest) + 8, bits); }
  uint64_t host_of(uint64_t guest) const { return l2_entry(guest) & kOffsetMask; }
  uint64_t refcount_block(uint64_t number) const { return get(refcount_table() + number * 8); }

  uint64_t refcount(uint64_t host) const {
    const ClusterIndex cluster = geometry_.host_cluster(HostOffset(host));
    const std::vector<std::byte> block = cluster_at(block_of(cluster));
    return load_refcount(block, geometry_.refcount_order(),
                         geometry_.index_in_refcount_block(cluster));
  }
  void set_refcount(uint64_t host, uint64_t value) {
    const ClusterIndex cluster = geometry_.host_cluster(HostOffset(host));
    std::vector<std::byte> block = cluster_at(block_of(cluster));
    store_refcount(block, geometry_.refcount_order(), geometry_.index_in_refcount_block(cluster),
                   value);
    disk_.poke(block_of(cluster), block);
  }
  // A new cluster at the end of the file, with a refcount.
  uint64_t add_cluster(uint64_t refcount) {
    const uint64_t at = geometry_.clusters_of(disk_.size()) << geometry_.cluster_bits();
    disk_.poke(at, std::vector<std::byte>(geometry_.cluster_size()));
    set_refcount(at, refcount);
    return at;
  }
  std::vector<std::byte> cluster_at(uint64_t at) const {
    std::vector<std::byte> bytes(geometry_.cluster_size());
    disk_.peek(at, bytes);
    return bytes;
  }
  uint64_t end() const { return geometry_.clusters_of(disk_.size()) << geometry_.cluster_bits(); }

 private:
  uint64_t block_of(ClusterIndex cluster) const {
    return refcount_block(geometry_.refcount_block_of(cluster));
  }
  sim::SimDisk& disk_;
  const Geometry geometry_;
};

inline std::vector<std::byte> content_of(uint64_t guest_cluster, uint64_t bytes) {
  std::vector<std::byte> content(bytes);
  for (uint64_t at = 0; at + 8 <= bytes; at += 8) {
    store_be64(&content[at], (guest_cluster + 1) << 32 | at);
  }
  return content;
}

inline Task<void> write_with(DeviceNode& node, uint64_t size,
                             const std::vector<uint64_t>& guest_clusters) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(Shard::current());
  for (uint64_t cluster : guest_clusters) {
    const std::vector<std::byte> bytes = content_of(cluster, size);
    co_await queue->write(GuestOffset(cluster * size), ConstBuffers(Bytes(bytes)), WriteOptions());
  }
  co_await queue->flush();
}

inline Task<void> write_clusters(const World& world, TestImage image,
                                 std::unique_ptr<SharedStorage> storage,
                                 std::vector<uint64_t> guest_clusters) {
  std::shared_ptr<DeviceNode> node =
      co_await open_test_image(world, image, nullptr, std::move(storage), false);
  const uint64_t size = uint64_t{1} << image.cluster_bits;
  Result<void> written = co_await write_with(*node, size, guest_clusters).result();
  Result<void> closed = co_await node->close().result();
  co_await std::move(written);
  co_await std::move(closed);
}

inline Task<void> read_with(DeviceNode& node, MutableBytes target) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(Shard::current());
  co_await queue->read(GuestOffset(0), MutableBuffers(target));
}

// All of the disk, as a guest reads it.
inline Task<std::vector<std::byte>> read_disk(const World& world, TestImage image,
                                              std::unique_ptr<SharedStorage> storage) {
  std::shared_ptr<DeviceNode> node =
      co_await open_test_image(world, image, nullptr, std::move(storage), true);
  // A damaged header may claim any size.
  std::vector<std::byte> bytes(std::min(node->size(), ByteCount(8 << 20)).value());
  Result<void> read = co_await read_with(*node, bytes).result();
  Result<void> closed = co_await node->close().result();
  co_await std::move(read);
  co_await std::move(closed);
  co_return std::move(bytes);
}

// Checks, and repairs if asked to; the storage is closed again.
inline Task<CheckReport> check_storage(const World& world, std::unique_ptr<SharedStorage> storage,
                                       CheckOptions options, CancelToken cancel = {}) {
  world.diagnostics.add_node("disk.qcow2");  // the storage's id, if it is the first
  const std::function<void(CheckProgress)> no_progress;
  Result<std::optional<CheckReport>> checked =
      co_await check_image(world, *storage, options, cancel, no_progress).result();
  Result<void> closed = co_await storage->node->close().result();
  std::optional<CheckReport> report = co_await std::move(checked);
  co_await std::move(closed);
  co_return std::move(*report);
}

class DamagedImage {
 public:
  explicit DamagedImage(TestImage image = {}, ByteCount size = ByteCount(4 << 20))
      : image_(image), size_(size) {
    disk_.poke(0, encode_test_image(image_, size_));
  }

  sim::SimWorld& world() { return world_; }
  sim::SimDisk& disk() { return disk_; }
  const TestImage& image() const { return image_; }
  DamagedTables tables() { return DamagedTables(disk_, image_); }
  std::unique_ptr<SharedStorage> storage() {
    return std::make_unique<SharedStorage>(
        std::make_unique<sim::SimStorageNode>(disk_, "disk.qcow2", 1));
  }
  void write(std::vector<uint64_t> guest_clusters) {
    auto work = [&](Shard&) {
      return write_clusters(world_.world(), image_, storage(), guest_clusters);
    };
    Result<void> written = world_.run(work);
    ASSERT_TRUE(written.ok()) << world_.diagnostics().describe(written.error());
  }
  std::vector<std::byte> content() {
    auto work = [&](Shard&) { return read_disk(world_.world(), image_, storage()); };
    Result<std::vector<std::byte>> read = world_.run(work);
    EXPECT_TRUE(read.ok()) << world_.diagnostics().describe(read.error());
    return read.ok() ? std::move(read).value() : std::vector<std::byte>();
  }
  Result<CheckReport> try_check(CheckOptions options) {
    auto work = [&](Shard&) { return check_storage(world_.world(), storage(), options); };
    return world_.run(work);
  }
  CheckReport check(CheckRepair repair = CheckRepair::kNone, uint64_t memory_max = 64 << 20) {
    CheckOptions options;
    options.repair = repair;
    options.memory_max = memory_max;
    Result<CheckReport> report = try_check(options);
    EXPECT_TRUE(report.ok()) << world_.diagnostics().describe(report.error());
    return report.ok() ? std::move(report).value() : CheckReport();
  }

 private:
  const TestImage image_;
  const ByteCount size_;
  sim::SimWorld world_{sim::seed_or(1), 2};
  sim::SimDisk disk_{sim::SimDiskOptions::file(), 1};
};

inline std::string all_lines(const CheckReport& report) {
  std::string text;
  for (const std::string& line : report.messages) text += line + "\n";
  for (const std::string& line : report.second_messages) text += "then: " + line + "\n";
  return text;
}

// One kind of damage to an image that holds guest clusters 0 to 9 and 600 (in another L2 table).
struct PlantedDamage {
  const char* name;
  void (*plant)(DamagedTables& tables);
  // Whether what a guest reads is the same afterwards (and can be read before).
  bool keeps_content = true;
};
std::vector<PlantedDamage> repairable_damage();
inline const std::vector<uint64_t> kDamagedClusters = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 600};

}  // namespace ringdisk::qcow2
