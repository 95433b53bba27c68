// SPDX-License-Identifier: Apache-2.0
// For tests: images two thirds of whose guest clusters are compressed, laid out by hand: streams
// one behind the other, at any byte, over the ends of host clusters, as many in one as its refcount
// can count.
//
//   guest clusters   0 packed | 1 packed | 2 absent | 3 packed | …
//   file             header, refcount table, block, L1 | L2 tables | streams …
#pragma once

#include <libdeflate.h>
#include <zstd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/random.h"
#include "qcow2/home/host_clusters.h"
#include "qcow2/image_fixture_test.h"

namespace ringdisk::qcow2 {

inline bool is_packed(uint64_t guest_cluster) { return guest_cluster % 3 != 2; }

// Half noise, so that a stream is about half as long as its cluster; every sector its own.
inline void packed_sector(uint64_t sector, sim::Sector& content) {
  constexpr uint64_t kSeed = 77;
  Random random(sim::mix_seed(kSeed, sector));
  for (size_t i = 0; i < sim::kSectorBytes; i += 8) {
    store_be64(&content[i], i < sim::kSectorBytes / 2 ? random.next() : sector);
  }
}

inline std::vector<std::byte> packed_content(uint64_t guest_cluster, uint64_t cluster_size) {
  std::vector<std::byte> content(cluster_size);
  const uint64_t first = guest_cluster * cluster_size / sim::kSectorBytes;
  for (uint64_t i = 0; i < cluster_size / sim::kSectorBytes; ++i) {
    sim::Sector sector;
    packed_sector(first + i, sector);
    copy_bytes(Bytes(sector),
               MutableBytes(content).subspan(i * sim::kSectorBytes, sim::kSectorBytes));
  }
  return content;
}

// Lays out one image.
class CompressedImage {
 public:
  CompressedImage(const TestImage& image, ByteCount size)
      : image_(image),
        geometry_(image.cluster_bits, image.version == 2 ? 4 : image.refcount_order),
        size_(size),
        bytes_(encode_test_image(image, size)) {}

  std::vector<std::byte> encode() {
    const uint64_t tables = geometry_.l1_entries_for(size_);
    const uint64_t first_table = bytes_.size() >> geometry_.cluster_bits();
    bytes_.resize((first_table + tables) << geometry_.cluster_bits());
    for (uint64_t i = 0; i < tables; ++i) {
      count(ClusterIndex(first_table + i));
      const HostOffset at = geometry_.host_offset(ClusterIndex(first_table + i));
      store_be64(&bytes_[l1_at() + i * kEntryBytes], L1Entry::owned(at).raw());
    }
    next_ = bytes_.size();
    for (uint64_t guest = 0; guest < geometry_.guest_clusters(size_); ++guest) {
      if (!is_packed(guest)) continue;
      const L2Entry entry = add(compress(packed_content(guest, geometry_.cluster_size())));
      store_be64(&bytes_[(first_table << geometry_.cluster_bits()) + guest * kEntryBytes],
                 entry.raw());
    }
    bytes_.resize(geometry_.clusters_of(bytes_.size()) << geometry_.cluster_bits());
    return std::move(bytes_);
  }

 private:
  uint64_t block_at() const {
    return uint64_t{1 + image_.refcount_table_clusters} << geometry_.cluster_bits();
  }
  uint64_t l1_at() const { return block_at() + geometry_.cluster_size(); }
  MutableBytes block() {
    return MutableBytes(bytes_).subspan(block_at(), geometry_.cluster_size());
  }
  uint64_t counted(ClusterIndex cluster) {
    return load_refcount(block(), geometry_.refcount_order(), cluster.value());
  }
  void count(ClusterIndex cluster) {
    store_refcount(block(), geometry_.refcount_order(), cluster.value(), counted(cluster) + 1);
  }

  std::vector<std::byte> compress(const std::vector<std::byte>& content) const {
    std::vector<std::byte> stream(content.size());
    size_t length = 0;
    if (image_.compression == Compression::kZstd) {
      length = ZSTD_compress(stream.data(), stream.size(), content.data(), content.size(), 1);
      CHECK(!ZSTD_isError(length));
    } else {
      libdeflate_compressor* compressor = libdeflate_alloc_compressor(1);
      length = libdeflate_deflate_compress(compressor, content.data(), content.size(),
                                           stream.data(), stream.size());
      libdeflate_free_compressor(compressor);
    }
    CHECK_NE(length, size_t{0});
    stream.resize(length);
    return stream;
  }

  // The next place for a stream of `length` bytes whose clusters can all count it.
  L2Entry place(uint64_t length) {
    for (;;) {
      const uint64_t extra = (next_ % 512 + length - 1) / 512;
      const L2Entry entry = L2Entry::compressed(geometry_, HostOffset(next_), extra);
      const ClusterRun run = host_clusters_of(entry, geometry_);
      CHECK_LE((run.first + run.count).value(), geometry_.refcount_block_entries());
      bool is_full = false;
      for (uint64_t i = 0; i < run.count; ++i) {
        is_full = is_full || counted(run.first + i) == geometry_.refcount_max();
      }
      if (!is_full) return entry;
      next_ = HostOffset(next_ + 1).align_up(geometry_.cluster_size()).value();
    }
  }

  L2Entry add(const std::vector<std::byte>& stream) {
    const L2Entry entry = place(stream.size());
    const ClusterRun run = host_clusters_of(entry, geometry_);
    for (uint64_t i = 0; i < run.count; ++i) count(run.first + i);
    bytes_.resize(std::max<uint64_t>(bytes_.size(), (next_ + stream.size() + 511) / 512 * 512));
    copy_bytes(stream, MutableBytes(bytes_).subspan(next_, stream.size()));
    next_ += stream.size();
    return entry;
  }

  const TestImage image_;
  const Geometry geometry_;
  const ByteCount size_;
  std::vector<std::byte> bytes_;
  uint64_t next_ = 0;
};

inline Task<void> create_compressed_image(TestImage image, SharedStorage& storage, ByteCount size) {
  CompressedImage layout(image, size);
  const std::vector<std::byte> bytes = layout.encode();
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  co_await access->write(HostOffset(0), ConstBuffers(Bytes(bytes)));
}

// As test_format, but for what the image holds at first.
inline sim::ImageFormat compressed_format(TestImage image) {
  sim::ImageFormat format = test_format(image);
  format.create = [image](const World&, SharedStorage& storage, ByteCount size) {
    return create_compressed_image(image, storage, size);
  };
  const uint64_t sectors = (uint64_t{1} << image.cluster_bits) / sim::kSectorBytes;
  format.initial = [below = format.initial, sectors](uint64_t sector, sim::Sector& content) {
    content = sim::Sector();
    if (is_packed(sector / sectors)) {
      packed_sector(sector, content);
    } else if (below) {
      below(sector, content);
    }
  };
  return format;
}

}  // namespace ringdisk::qcow2
