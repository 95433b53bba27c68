// SPDX-License-Identifier: Apache-2.0
// Reading and decoding slices.
#include "qcow2/slice_reader.h"

#include <algorithm>

#include "qcow2/damage.h"
#include "qcow2/home/host_clusters.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kReadAheadSlices = 16;

// On the disk our own bits are reserved ones, so an entry that has them is as invalid as one that
// points at a table.
L2Entry without_our_bits(L2Entry entry) {
  if (entry.is_compressed() || (entry.raw() & (kFrozen | kRejected)) == 0) return entry;
  return L2Entry(entry.raw() | kRejected, entry.bitmap());
}

// Which host clusters entries point at, asked about one after the other: most point right behind
// the one before.
class PointedRuns {
 public:
  PointedRuns(const Geometry& geometry, std::vector<ClusterRun>& runs)
      : geometry_(geometry), runs_(runs) {}

  void add(L2Entry entry) {
    if (entry.has_host() && entry.host() == next_) [[likely]] {
      ++runs_.back().count;
      next_ = next_ + ByteCount(geometry_.cluster_size());
      return;
    }
    const ClusterRun run = host_clusters_of(entry, geometry_);
    if (run.count == 0) return;
    runs_.push_back(run);
    next_ = geometry_.host_offset(run.first + run.count);
  }

 private:
  const Geometry& geometry_;
  std::vector<ClusterRun>& runs_;
  HostOffset next_{kNowhere};  // behind the last run

  static constexpr uint64_t kNowhere = 1;  // no entry points there
};

// `see` is shown every entry. In a loop of its own without subclusters, where most time goes.
template <class See>
void fill(Slice& slice, Bytes bytes, const Geometry& geometry, See see) {
  const uint64_t entries = geometry.slice_entries();
  if (geometry.has_subclusters()) {
    for (uint64_t i = 0; i < entries; ++i) {
      const L2Entry entry = without_our_bits(load_l2_entry(bytes, i, geometry));
      slice.fill(i, entry);
      see(entry);
    }
    return;
  }
  CHECK_EQ(uint64_t{bytes.size()}, entries * kEntryBytes);
  std::atomic<uint64_t>* const words = slice.entries.get();
  const std::byte* at = bytes.data();
  for (uint64_t i = 0; i < entries; ++i, at += kEntryBytes) {
    const L2Entry entry = without_our_bits(L2Entry(load_be64(at), 0));
    words[i].store(entry.raw(), std::memory_order_relaxed);
    see(entry);
  }
}

void fill_in_data_file(Slice& slice, Bytes bytes, const Geometry& geometry) {
  const ClusterIndex first(slice.number << geometry.slice_bits());
  for (uint64_t i = 0; i < geometry.slice_entries(); ++i) {
    const L2Entry entry = load_l2_entry(bytes, i, geometry);
    slice.fill(i, without_our_bits(entry_in_data_file(entry, geometry.guest_offset(first + i))));
  }
}

}  // namespace

DecodedSlice decode_slice(const Image& image, uint64_t number, Bytes bytes,
                          std::unique_ptr<Slice> spare) {
  const Geometry& geometry = image.geometry;
  DecodedSlice decoded{std::move(spare), {}};
  if (decoded.slice) {
    decoded.slice->begin_anew(number);
  } else {
    decoded.slice =
        std::make_unique<Slice>(number, geometry.slice_entries(), geometry.has_subclusters());
  }
  if (image.has_data_file()) {
    fill_in_data_file(*decoded.slice, bytes, geometry);
  } else if (image.limits.read_only) {
    fill(*decoded.slice, bytes, geometry, [](L2Entry) {});
  } else {
    PointedRuns pointed(geometry, decoded.pointed);
    fill(*decoded.slice, bytes, geometry, [&pointed](L2Entry entry) { pointed.add(entry); });
  }
  return decoded;
}

uint64_t slices_to_read(const Image& image, uint64_t number) {
  const Geometry& geometry = image.geometry;
  const uint64_t in_table = geometry.slice_in_table(number);
  if (in_table == 0 || !image.slices.find(number - 1)) return 1;
  const uint64_t left = std::min(kReadAheadSlices, geometry.slices_per_table() - in_table);
  uint64_t count = 1;
  while (count < left && !image.slices.find(number + count)) ++count;
  return count;
}

// Beyond the end a read gives zeros: a file cut short would pass for an empty disk.
Task<void> read_slices(const Image& image, StorageAccess& storage, L1Entry table, uint64_t number,
                       MutableBytes target) {
  const Geometry& geometry = image.geometry;
  const uint64_t l1_index = geometry.l1_index_of_slice(number);
  if (geometry.host_cluster(table.table()).value() >=
      geometry.clusters_of(storage.size().value())) {
    co_await fail(missing_table(image, l1_index));
  }
  const ByteCount before(geometry.slice_in_table(number) * geometry.slice_bytes());
  MutableBuffers buffers(target);
  Result<void> read = co_await storage.read(table.table() + before, buffers).result();
  if (!read.ok()) co_await fail(unread_table(image, l1_index, read.error()));
}

Task<std::unique_ptr<SliceBatch>> SliceReader::read(uint64_t number) {
  const Geometry& geometry = image_.geometry;
  const uint64_t since = image_.departures.now();
  const L1Entry table = image_.l1.load(geometry.l1_index_of_slice(number));
  if (!table.is_valid(geometry) || !table.has_table()) co_return nullptr;
  const uint64_t count = slices_to_read(image_, number);
  const uint64_t bytes = count * geometry.slice_bytes();
  Buffer buffer = Shard::current().buffers().take(bytes);
  Result<void> read =
      co_await read_slices(image_, storage_, table, number, buffer.first(bytes)).result();
  if (!read.ok()) co_return nullptr;
  auto batch = std::make_unique<SliceBatch>(SliceBatch{number, table, since, {}});
  for (uint64_t i = 0; i < count; ++i) {
    Bytes slice_bytes =
        buffer.first(bytes).subspan(i * geometry.slice_bytes(), geometry.slice_bytes());
    batch->slices.push_back(decode_slice(image_, number + i, slice_bytes, take_spare()));
  }
  co_return std::move(batch);
}

void SliceReader::recycle(SliceBatch& batch) {
  for (DecodedSlice& decoded : batch.slices) {
    if (decoded.slice && spares_.size() < kSparesMax) spares_.push_back(std::move(decoded.slice));
  }
}

std::unique_ptr<Slice> SliceReader::take_spare() {
  if (spares_.empty()) return nullptr;
  std::unique_ptr<Slice> spare = std::move(spares_.back());
  spares_.pop_back();
  return spare;
}

}  // namespace ringdisk::qcow2
