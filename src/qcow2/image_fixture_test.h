// SPDX-License-Identifier: Apache-2.0
// For tests: qcow2 images of any geometry on simulated storages, as the model test and the sweeps
// want them. Images are laid out here by hand, as small as the specification allows, so that tables
// have to grow: nothing is shared with create.h. Checked with check.h.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "block/graph.h"
#include "nodes/raw.h"
#include "qcow2/check/check.h"
#include "qcow2/describe.h"
#include "qcow2/driver.h"
#include "qcow2/layout/refcount_block.h"
#include "qcow2/node.h"
#include "qcow2/toy_encryption_test.h"
#include "runtime/shard.h"
#include "sim/image_format.h"
#include "sim/seeds.h"
#include "sim/sim_storage.h"

namespace ringdisk::qcow2 {

struct TestImage {
  uint32_t version = 3;
  uint32_t cluster_bits = 12;
  uint32_t refcount_order = 4;
  bool extended_l2 = false;
  uint32_t refcount_table_clusters = 1;
  uint64_t backing_bytes = 0;       // of a raw backing image; 0: none
  std::string slice_memory = "1M";  // l2-cache-size
  bool leaks_allowed = false;       // by the check
  Compression compression = Compression::kDeflate;
  bool lazy_refcounts = false;
  bool has_data_file = false;
  bool data_file_is_raw = false;
  bool is_encrypted = false;  // toy_encryption_test.h
  DevicePolicy policy;
  PlantedBug planted_bug = PlantedBug::kNone;
};

// The image's tables as bytes from its first cluster on: header, refcount table, one refcount
// block, L1 table, encryption header.
inline std::vector<std::byte> encode_test_image(const TestImage& image, ByteCount size) {
  Header header;
  header.version = image.version;
  header.cluster_bits = image.cluster_bits;
  header.refcount_order = image.version == 2 ? 4 : image.refcount_order;
  header.size = size;
  header.compression = image.compression;
  if (image.compression != Compression::kDeflate) {
    header.incompatible_features |= kIncompatibleCompression;
  }
  if (image.has_data_file) header.incompatible_features |= kIncompatibleDataFile;
  if (image.data_file_is_raw) header.autoclear_features |= kAutoclearRawDataFile;
  if (image.lazy_refcounts) header.compatible_features |= kCompatibleLazyRefcounts;
  if (image.extended_l2) header.incompatible_features |= kIncompatibleExtendedL2;
  const Geometry geometry = header.geometry();
  const uint64_t l1_entries = geometry.l1_entries_for(size);
  const uint64_t l1_clusters = geometry.clusters_of(l1_entries * kEntryBytes);
  const uint64_t block_at = 1 + image.refcount_table_clusters;
  header.l1_size = static_cast<uint32_t>(l1_entries);
  header.l1_table = geometry.host_offset(ClusterIndex(block_at + 1));
  header.refcount_table = geometry.host_offset(ClusterIndex(1));
  header.refcount_table_clusters = image.refcount_table_clusters;
  if (image.backing_bytes != 0) {
    header.backing_name = "base.raw";
    Bytes format = as_bytes("raw");
    header.extensions.push_back(
        {ExtensionType::kBackingFormat, std::vector<std::byte>(format.begin(), format.end())});
  }
  const uint64_t encryption_at = block_at + 1 + l1_clusters;
  uint64_t total = encryption_at;
  if (image.is_encrypted) {
    total += geometry.clusters_of(kToyHeaderBytes);
    set_encryption_header(header, HostRange(geometry.host_offset(ClusterIndex(encryption_at)),
                                            ByteCount(kToyHeaderBytes)));
  }
  std::vector<std::byte> bytes = encode_header(header).value();
  bytes.resize(total << image.cluster_bits);
  store_be64(&bytes[geometry.cluster_size()], block_at << image.cluster_bits);
  MutableBytes block =
      MutableBytes(bytes).subspan(block_at << image.cluster_bits, geometry.cluster_size());
  CHECK_LE(total, geometry.refcount_block_entries());
  for (uint64_t i = 0; i < total; ++i) store_refcount(block, header.refcount_order, i, 1);
  if (image.is_encrypted) {
    const uint64_t at = encryption_at << image.cluster_bits;
    copy_bytes(toy_header(), MutableBytes(bytes).subspan(at, kToyHeaderBytes));
  }
  return bytes;
}

// A table's entry on a disk, past everything else.
inline uint64_t entry_on(const sim::SimDisk& disk, uint64_t at) {
  std::byte bytes[8];
  disk.peek(at, bytes);
  return load_be64(bytes);
}
inline void put_entry_on(sim::SimDisk& disk, uint64_t at, uint64_t value) {
  std::byte bytes[8];
  store_be64(bytes, value);
  disk.poke(at, bytes);
}

inline Task<void> create_test_image(TestImage image, SharedStorage& storage, ByteCount size) {
  const std::vector<std::byte> bytes = encode_test_image(image, size);
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  co_await access->write(HostOffset(0), ConstBuffers(Bytes(bytes)));
}

// Opens the image alone, through the driver.
inline Task<OpenedFormat> open_test_format(const World& world,
                                           std::unique_ptr<SharedStorage> storage, bool read_only,
                                           std::string slice_memory) {
  world.diagnostics.add_node("disk.qcow2");  // the storage's id, if it is the first
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  OpenMode mode;
  mode.read_only = read_only;
  Options options;
  options.set("l2-cache-size", std::move(slice_memory));
  FormatOpening opening{world, graph, std::move(storage), "", mode, std::move(options)};
  FormatDriver driver = qcow2_driver(&toy_encryption());
  co_return co_await driver.open(std::move(opening));
}

// A disk with content of its own, as a backing image.
inline std::shared_ptr<sim::SimDisk> test_backing_disk(uint64_t bytes) {
  sim::SimDiskOptions options = sim::SimDiskOptions::file();
  options.size = ByteCount(bytes);
  options.stale = true;
  options.read_only = true;
  return std::make_shared<sim::SimDisk>(options, 1);
}

inline std::shared_ptr<DeviceNode> test_backing(sim::SimDisk& disk) {
  auto storage =
      std::make_unique<SharedStorage>(std::make_unique<sim::SimStorageNode>(disk, "base.raw", 2));
  auto raw = std::make_unique<RawNode>(std::move(storage), ByteCount(0), ByteCount(disk.size()));
  return std::make_shared<DeviceNode>("base.raw", 2, std::move(raw), nullptr);
}

inline Task<std::shared_ptr<DeviceNode>> open_test_image(const World& world, TestImage image,
                                                         std::shared_ptr<sim::SimDisk> backing,
                                                         std::unique_ptr<SharedStorage> storage,
                                                         bool read_only) {
  OpenedFormat opened =
      co_await open_test_format(world, std::move(storage), read_only, image.slice_memory);
  static_cast<Qcow2Node&>(*opened.node).image().planted_bug = image.planted_bug;
  std::shared_ptr<DeviceNode> below;
  if (backing) below = test_backing(*backing);
  co_return std::make_shared<DeviceNode>("disk.qcow2", 1, std::move(opened.node), below,
                                         image.policy);
}

// What lazy refcounts have left after a crash is put right first, as an open for writing does it:
// where, and only where, the dirty bit is set.
inline Task<void> count_anew_if_dirty(const World& world, SharedStorage& storage) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  Header header = co_await read_header(*access, world.diagnostics);
  access.reset();
  if (!header.is_dirty()) co_return;
  CheckOptions options;
  options.repair = CheckRepair::kAll;
  const CancelToken never;
  const std::function<void(CheckProgress)> no_progress;
  co_await check_image(world, storage, options, never, no_progress);
}

inline Task<void> check_test_image(const World& world, TestImage image,
                                   std::unique_ptr<SharedStorage> storage) {
  const std::function<void(CheckProgress)> no_progress;
  if (image.lazy_refcounts) co_await count_anew_if_dirty(world, *storage);
  Result<std::optional<CheckReport>> checked =
      co_await check_image(world, *storage, no_progress).result();
  co_await storage->node->close();
  std::optional<CheckReport> report = co_await std::move(checked);
  CHECK(report.has_value());
  EXPECT_EQ(report->corruptions, uint64_t{0});
  EXPECT_EQ(report->check_errors, uint64_t{0});
  if (!image.leaks_allowed) {
    EXPECT_EQ(report->leaks, uint64_t{0});
  }
  if (report->corruptions != 0 || (!image.leaks_allowed && report->leaks != 0)) {
    for (const std::string& message : report->messages) ADD_FAILURE() << message;
  }
}

// What stands on the disk; the storage is closed again.
inline Task<SnapshotTable> snapshots_on(const World& world,
                                        std::unique_ptr<SharedStorage> storage) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*storage, Shard::current());
  const Header header = co_await read_header(*access, world.diagnostics);
  SnapshotTable table = co_await read_snapshots(*access, header, world.diagnostics);
  access.reset();
  co_await storage->node->close();
  co_return std::move(table);
}

inline sim::ImageFormat test_format(TestImage image) {
  std::shared_ptr<sim::SimDisk> backing;
  if (image.backing_bytes != 0) backing = test_backing_disk(image.backing_bytes);
  sim::ImageFormat format;
  format.name = "qcow2";
  format.create = [image](const World&, SharedStorage& storage, ByteCount size) {
    return create_test_image(image, storage, size);
  };
  format.open = [image, backing](const World& world, std::unique_ptr<SharedStorage> storage,
                                 bool read_only) {
    return open_test_image(world, image, backing, std::move(storage), read_only);
  };
  if (backing) {
    format.initial = [backing](uint64_t sector, sim::Sector& content) {
      content = sim::Sector();
      if ((sector + 1) * sim::kSectorBytes > backing->size()) return;
      content = sim::stale_sector(sector);
    };
  }
  // Over a backing image too; version 2, which cannot, does nothing there.
  const bool hides = image.version >= 3 || !backing;
  const bool zeroes = hides && image.policy.discards && !image.data_file_is_raw;
  if (zeroes) format.discard_unit = uint64_t{1} << image.cluster_bits;
  format.check = [image](const World& world, std::unique_ptr<SharedStorage> storage) {
    return check_test_image(world, image, std::move(storage));
  };
  return format;
}

}  // namespace ringdisk::qcow2
