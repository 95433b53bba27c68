// SPDX-License-Identifier: Apache-2.0
// For tests of images whose guest data lies in a file of its own: both files on simulated disks.
#pragma once

#include "qcow2/bitmaps/bitmap_fixture_test.h"

namespace ringdisk::qcow2 {

inline TestImage data_file_image(uint64_t seed) {
  Random random(seed);
  TestImage image;
  image.cluster_bits = static_cast<uint32_t>(9 + random.below(8));
  image.refcount_order = static_cast<uint32_t>(random.below(7));
  image.has_data_file = true;
  image.data_file_is_raw = seed % 3 == 0;
  image.lazy_refcounts = seed % 5 == 0;
  image.extended_l2 = image.cluster_bits >= 14 && seed % 2 == 0;
  image.leaks_allowed = true;
  return image;
}

inline std::unique_ptr<SharedStorage> data_on(sim::SimDisk& disk) {
  return std::make_unique<SharedStorage>(
      std::make_unique<sim::SimStorageNode>(disk, "disk.data", 2));
}

inline Task<OpenedFormat> open_format_with_data(const World& world,
                                                std::unique_ptr<SharedStorage> storage,
                                                std::unique_ptr<SharedStorage> data,
                                                bool read_only) {
  world.diagnostics.add_node("disk.qcow2");
  world.diagnostics.add_node("disk.data");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  OpenMode mode;
  mode.read_only = read_only;
  FormatOpening opening{world, graph, std::move(storage), "", mode, Options(), std::move(data)};
  const FormatDriver driver = qcow2_driver(&toy_encryption());
  co_return co_await driver.open(std::move(opening)).result();
}

inline Task<std::shared_ptr<DeviceNode>> open_with_data(const World& world, TestImage image,
                                                        std::unique_ptr<SharedStorage> storage,
                                                        std::unique_ptr<SharedStorage> data,
                                                        bool read_only) {
  OpenedFormat opened =
      co_await open_format_with_data(world, std::move(storage), std::move(data), read_only);
  static_cast<Qcow2Node&>(*opened.node).image().planted_bug = image.planted_bug;
  co_return std::make_shared<DeviceNode>("disk.qcow2", 1, std::move(opened.node), nullptr);
}

// --- the same for images with a data file and without: `open` gives one storage or two

inline Task<OpenedFormat> open_format_on(const World& world, const sim::OpenStorages& open,
                                         bool read_only) {
  std::vector<std::unique_ptr<SharedStorage>> storages = open();
  std::unique_ptr<SharedStorage> data;
  if (storages.size() > 1) data = std::move(storages[1]);
  co_return co_await open_format_with_data(world, std::move(storages[0]), std::move(data),
                                           read_only)
      .result();
}

inline Task<std::shared_ptr<DeviceNode>> open_image_on(const World& world, TestImage image,
                                                       const sim::OpenStorages& open,
                                                       std::shared_ptr<sim::SimDisk> backing,
                                                       bool read_only) {
  OpenedFormat opened = co_await open_format_on(world, open, read_only);
  static_cast<Qcow2Node&>(*opened.node).image().planted_bug = image.planted_bug;
  std::shared_ptr<DeviceNode> below;
  if (backing) below = test_backing(*backing);
  co_return std::make_shared<DeviceNode>("disk.qcow2", 1, std::move(opened.node), below,
                                         image.policy);
}

// A change of the image as a whole, as edit.h makes it.
inline Task<void> edit_image_on(const World& world, const sim::OpenStorages& open,
                                const ImageEdit& edit) {
  OpenedFormat opened = co_await open_format_on(world, open, false);
  auto& node = static_cast<Qcow2Node&>(*opened.node);
  Result<void> edited = co_await node.edit(edit).result();
  Result<void> closed = co_await node.close().result();
  co_await std::move(edited);
  co_await std::move(closed);
}

inline Task<Content> content_on(const World& world, TestImage image, const sim::OpenStorages& open,
                                std::shared_ptr<sim::SimDisk> backing) {
  std::shared_ptr<DeviceNode> node = co_await open_image_on(world, image, open, backing, true);
  Content content(node->size().value());
  std::unique_ptr<DeviceQueue> queue = co_await node->open_queue(Shard::current());
  Result<void> read =
      co_await queue->read(GuestOffset(0), MutableBuffers(MutableBytes(content))).result();
  queue.reset();
  co_await node->close();
  co_await std::move(read);
  co_return std::move(content);
}

inline Task<SeenBitmaps> bitmaps_on(const World& world, const sim::OpenStorages& open) {
  OpenedFormat opened = co_await open_format_on(world, open, true);
  Result<SeenBitmaps> seen = co_await see_bitmaps(*opened.node).result();
  co_await opened.node->close();
  co_return std::move(seen);
}

// All but the first storage are closed again.
inline std::unique_ptr<SharedStorage> first_of(const sim::OpenStorages& open) {
  return std::move(open().front());
}

// For crash sweeps: both files are disks that lose power.
inline sim::ImageFormat two_disk_format(TestImage image) {
  sim::ImageFormat format = test_format(image);
  format.open_all = [image](const World& world,
                            std::vector<std::unique_ptr<SharedStorage>> storages) {
    return open_with_data(world, image, std::move(storages[0]), std::move(storages[1]), false);
  };
  return format;
}

}  // namespace ringdisk::qcow2
