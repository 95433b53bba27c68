// SPDX-License-Identifier: Apache-2.0
// For tests of persistent bitmaps: images with some, edited, written to from several shards, and
// what became of the bitmaps held against what became of the disk: a granule whose content differs
// from what it was when the bitmap began must be dirty.
#pragma once

#include <map>

#include "base/log.h"
#include "qcow2/bitmaps/bitmaps.h"
#include "qcow2/edit/edit_fixture_test.h"

namespace ringdisk::qcow2 {

inline constexpr uint64_t kTestGranularity = 4096;

inline BitmapEdit bitmap_edit(BitmapEdit::Action action, std::string name,
                              uint64_t granularity = 0) {
  BitmapEdit edit;
  edit.action = action;
  edit.bitmap = std::move(name);
  edit.granularity = granularity;
  return edit;
}
inline BitmapEdit add_bitmap(std::string name, uint64_t granularity = kTestGranularity) {
  return bitmap_edit(BitmapEdit::Action::kAdd, std::move(name), granularity);
}

inline Task<void> edit_test_bitmaps(const World& world, std::unique_ptr<SharedStorage> storage,
                                    std::vector<BitmapEdit> edits) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  co_await edit_bitmaps(graph, std::move(storage), std::move(edits));
}

// A header with an extension of `padding` bytes before all others, so that what follows lies
// elsewhere; 0: none.
inline std::vector<std::byte> encode_padded_image(const TestImage& image, ByteCount size,
                                                  uint32_t padding, const std::string& backing) {
  std::vector<std::byte> bytes = encode_test_image(image, size);
  Diagnostics diagnostics;
  Header header = parse_header(bytes, diagnostics, 0).value();
  if (padding != 0) {
    HeaderExtension unknown;
    unknown.type = static_cast<ExtensionType>(0x70616464);
    unknown.content.resize(padding);
    header.extensions.insert(header.extensions.begin(), std::move(unknown));
  }
  header.backing_name = backing;
  header.has_backing = !backing.empty();
  const std::vector<std::byte> encoded = encode_header(header).value();
  fill_zero(MutableBytes(bytes).first(size_t{1} << image.cluster_bits));
  copy_bytes(encoded, MutableBytes(bytes).first(encoded.size()));
  return bytes;
}

// The dirty granules of each usable bitmap, and the names of the others.
struct SeenBitmaps {
  std::map<std::string, std::vector<bool>> dirty;
  std::vector<std::string> unusable;
  uint64_t granularity = 0;  // of the last one
};

inline std::vector<bool> granules_of(const DirtyBits& bits) {
  std::vector<bool> granules;
  for (GuestRange rest(GuestOffset(0), bits.size()); !rest.empty();) {
    const DirtyBits::Stretch stretch = bits.find_stretch(rest);
    const uint64_t end = rest.offset.value() + stretch.length.value();
    while (granules.size() * bits.granularity() < end) granules.push_back(stretch.is_dirty);
    rest = GuestRange::between(rest.offset + stretch.length, rest.end());
  }
  return granules;
}

// None of an image of version 2, which cannot have any.
inline Task<SeenBitmaps> see_bitmaps(FormatNode& node) {
  SeenBitmaps seen;
  Result<std::vector<BitmapDescription>> listed = co_await node.bitmaps().result();
  const bool has_none = !listed.ok() && listed.error().kind == ErrorKind::kUnsupported;
  if (has_none) co_return std::move(seen);
  const std::vector<BitmapDescription> all = co_await std::move(listed);
  for (const BitmapDescription& one : all) {
    seen.granularity = one.granularity;
    Result<std::shared_ptr<const DirtyBits>> bits = co_await node.find_bitmap(one.name).result();
    EXPECT_EQ(bits.ok(), one.is_usable) << one.name;
    if (bits.ok()) {
      seen.dirty[one.name] = granules_of(*bits.value());
    } else {
      seen.unusable.push_back(one.name);
    }
  }
  co_return std::move(seen);
}

inline Task<SeenBitmaps> read_bitmaps(const World& world, std::unique_ptr<SharedStorage> storage) {
  OpenedFormat opened = co_await open_test_format(world, std::move(storage), true, "1M");
  Result<SeenBitmaps> seen = co_await see_bitmaps(*opened.node).result();
  co_await opened.node->close();
  co_return std::move(seen);
}

// Every granule in which the two differ is dirty.
inline void expect_covered(const std::vector<bool>& dirty, const Content& before,
                           const Content& after, uint64_t granularity) {
  ASSERT_EQ(dirty.size(), (after.size() + granularity - 1) / granularity);
  for (size_t i = 0; i < dirty.size(); ++i) {
    if (dirty[i]) continue;
    const size_t at = i * granularity;
    const size_t end = std::min({at + granularity, before.size(), after.size()});
    if (at >= end) continue;
    const bool is_same = std::equal(before.begin() + static_cast<ptrdiff_t>(at),
                                    before.begin() + static_cast<ptrdiff_t>(end),
                                    after.begin() + static_cast<ptrdiff_t>(at));
    EXPECT_TRUE(is_same) << "granule " << i << " changed and is not dirty";
  }
}

// Random requests of all kinds; `touched` are the granules they name, whether or not they change.
inline Task<void> change_at_random(DeviceQueue& queue, uint64_t seed, int requests,
                                   std::vector<bool>& touched) {
  Random random(seed);
  const uint64_t size = queue.node().size().value();
  const uint64_t cluster = queue.node().format().limits().cluster_size.value();
  for (int i = 0; i < requests; ++i) {
    // Half of them in a part of the disk where they meet.
    const uint64_t within = random.chance(50) ? size : std::min<uint64_t>(size, 128 << 10);
    uint64_t at = random.below(within / 512) * 512;
    uint64_t length = std::min<uint64_t>(512 * (1 + random.below(40)), size - at);
    const uint64_t what = random.below(100);
    if (what >= 90) {
      at = at / cluster * cluster;
      length = std::min(cluster, size - at);
    }
    for (uint64_t one = at / kTestGranularity; one * kTestGranularity < at + length; ++one) {
      touched[one] = true;
    }
    const GuestRange range{GuestOffset(at), ByteCount(length)};
    std::vector<std::byte> bytes(length, static_cast<std::byte>(random.next()));
    if (what < 55) {
      for (std::byte& one : bytes) one = static_cast<std::byte>(random.next());
      co_await queue.write(range.offset, ConstBuffers(Bytes(bytes)), WriteOptions());
    } else if (what < 70) {
      co_await queue.write_zeroes(range, ZeroOptions());
    } else if (what < 85) {
      co_await queue.discard(range);
    } else if (what < 90) {
      co_await queue.flush();
    } else {
      co_await queue.write_compressed(range.offset, bytes, CompressOptions());
    }
  }
}

inline Task<void> change_here(Shard& shard, DeviceNode& node, uint64_t seed, int requests,
                              std::vector<bool>& touched) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(shard);
  // Several at once, so that writes meet in new clusters (block/joined_writes.h).
  constexpr size_t kWorkers = 4;
  auto one = [&](size_t worker) {
    const uint64_t own_seed = sim::mix_seed(seed, shard.index() * kWorkers + worker);
    return change_at_random(*queue, own_seed, requests, touched);
  };
  co_await when_all(kWorkers, one);
}

inline Task<void> change_on_shard(Shard& there, DeviceNode& node, uint64_t seed, int requests,
                                  std::vector<bool>& touched) {
  auto change = [&] { return change_here(there, node, seed, requests, touched); };
  co_await there.call(change);
}

inline Task<void> change_on_all_shards(const World& world, DeviceNode& node, uint64_t seed,
                                       int requests, std::vector<bool>& touched) {
  auto one = [&](size_t index) {
    return change_on_shard(*world.shards[index], node, seed, requests, touched);
  };
  co_await when_all(world.shards.size(), one);
}

// The image is opened, changed from all shards of the world at once, and closed.
inline Task<void> change_image_at_random(const World& world, TestImage image,
                                         std::unique_ptr<SharedStorage> storage, uint64_t seed,
                                         int requests, std::vector<bool>& touched) {
  std::shared_ptr<DeviceNode> node =
      co_await open_test_image(world, image, nullptr, std::move(storage), false);
  Result<void> changed =
      co_await change_on_all_shards(world, *node, seed, requests, touched).result();
  Result<void> closed = co_await node->close().result();
  co_await std::move(changed);
  co_await std::move(closed);
}

}  // namespace ringdisk::qcow2
