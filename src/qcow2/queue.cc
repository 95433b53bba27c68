// SPDX-License-Identifier: Apache-2.0
// The queue: lookups here, changes at home, and compressed clusters read in place.
#include "qcow2/queue.h"

#include "base/diagnostics.h"
#include "qcow2/damage.h"

namespace ringdisk::qcow2 {

Qcow2Queue::Qcow2Queue(Image& image, Home& home, Shard& home_shard, Shard& shard,
                       std::unique_ptr<StorageAccess> storage, std::unique_ptr<StorageAccess> data)
    : image_(image),
      home_(home),
      home_shard_(home_shard),
      shard_(shard),
      storage_(std::move(storage)),
      data_(std::move(data)),
      lookup_(image, shard.index()),
      reader_(image, *storage_),
      compressor_(image.header.compression) {}

bool Qcow2Queue::try_map(GuestRange range, MapPurpose purpose, Mapping& mapping) {
  if (purpose == MapPurpose::kWrite && !image_.tracking.is_off()) [[unlikely]] {
    return try_map_tracked(range, mapping);
  }
  return try_map_untracked(range, purpose, mapping);
}

// What may be written in place is marked before it is. While the image does not say yet that its
// bitmaps are in use nothing may be: then the write goes to the home shard, which sees to that.
bool Qcow2Queue::try_map_tracked(GuestRange range, Mapping& mapping) {
  if (image_.tracking.is_armed()) {
    mapping = Mapping();
    mapping.length = range.length;
    return true;
  }
  if (!try_map_untracked(range, MapPurpose::kWrite, mapping)) return false;
  if (mapping.kind == MappingKind::kData) {
    image_.tracking.mark(GuestRange(range.offset, mapping.length));
  }
  return true;
}

bool Qcow2Queue::try_map_untracked(GuestRange range, MapPurpose purpose, Mapping& mapping) {
  mapping.pin.release();
  bool pinned = false;
  uint32_t generation = 0;
  if (!lookup_.try_map(range, purpose, mapping, pinned, generation)) return false;
  if (pinned) mapping.pin = MappingPin(*this, generation);
  return true;
}

void Qcow2Queue::release_pin(uint32_t generation) {
  image_.pins.release(shard_.index(), generation);
}

// A slice that is missing is read here, once for all who miss it; what is in memory and cannot be
// used is for the home shard to judge.
Task<void> Qcow2Queue::load_map(GuestOffset at) {
  const uint64_t number = image_.geometry.slice_of(image_.geometry.guest_cluster(at));
  if (&home_shard_ == &shard_ || image_.slices.find(number)) {
    co_await load_at_home(at, nullptr);
    co_return;
  }
  RangeGuard guard(loading_, number, number + slices_to_read(image_, number));
  co_await guard.acquired();
  if (image_.slices.find(number)) co_return;
  std::unique_ptr<SliceBatch> read = co_await reader_.read(number);
  Result<void> loaded = co_await load_at_home(at, read.get()).result();
  if (read) reader_.recycle(*read);
  co_await std::move(loaded);
}

Task<void> Qcow2Queue::load_at_home(GuestOffset at, SliceBatch* read) {
  auto load = [this, at, read] { return home_.load(at, read); };
  co_await home_shard_.call(load);
}

Task<std::optional<Allocation>> Qcow2Queue::begin_allocation(GuestRange range) {
  auto begin = [this, range] { return home_.begin_allocation(range); };
  co_return co_await home_shard_.call(begin);
}

Task<void> Qcow2Queue::finish_allocation(const Allocation& allocation) {
  auto finish = [this, allocation] { return home_.finish_allocation(allocation); };
  co_await home_shard_.call(finish);
}

Task<void> Qcow2Queue::abandon_allocation(const Allocation& allocation) {
  auto abandon = [this, allocation] { return home_.abandon_allocation(allocation); };
  co_await home_shard_.call(abandon);
}

// In a raw data file the zeros are there before the entry says so, and the place stays.
Task<ClusterChange> Qcow2Queue::zero_clusters(GuestRange clusters, ZeroOptions options) {
  if (image_.data_file_is_raw()) {
    co_await record_change(clusters);
    co_await write_raw_zeroes(clusters, options);
    options.may_unmap = false;
  }
  auto zero = [this, clusters, options] { return home_.zero_clusters(clusters, options); };
  co_return co_await home_shard_.call(zero);
}

// Before bytes change that the home shard does not hear of until afterwards.
Task<void> Qcow2Queue::record_change(GuestRange range) {
  if (image_.tracking.is_off()) co_return;
  auto record = [this, range] { return home_.record_change(range); };
  co_await home_shard_.call(record);
}

Task<void> Qcow2Queue::write_raw_zeroes(GuestRange clusters, ZeroOptions options) {
  const HostRange place(HostOffset(clusters.offset.value()), clusters.length);
  co_await data_->write_zeroes(place, options);
}

// A raw data file gives back what becomes zeros by that: it says by itself what the guest reads,
// and the entries stay.
Task<ClusterChange> Qcow2Queue::discard_raw(GuestRange clusters) {
  co_await record_change(clusters);
  ZeroOptions if_quick;
  if_quick.fast_only = true;
  Result<void> zeroed = co_await write_raw_zeroes(clusters, if_quick).result();
  if (!zeroed.ok() && zeroed.error().kind != ErrorKind::kUnsupported) co_return zeroed.error();
  co_return ClusterChange{clusters.length};
}

// A data file is given its space back before the entries go: whoever writes to a cluster meanwhile
// has no order with this, and who writes afterwards finds nothing under way.
Task<ClusterChange> Qcow2Queue::discard_clusters(GuestRange clusters) {
  if (image_.data_file_is_raw()) {
    ClusterChange given_back = co_await discard_raw(clusters);
    co_return given_back;
  }
  if (image_.has_data_file()) {
    co_await record_change(clusters);
    const HostRange place(HostOffset(clusters.offset.value()), clusters.length);
    co_await data_->discard(place);
  }
  auto discard = [this, clusters] { return home_.discard_clusters(clusters); };
  co_return co_await home_shard_.call(discard);
}

Task<void> Qcow2Queue::flush() {
  auto flush = [this] { return home_.flush(); };
  co_await home_shard_.call(flush);
}

// --- compressed clusters

// The entry of a guest cluster, with a pin on whatever it points at. What cannot be used is for the
// home shard to judge.
Task<L2Entry> Qcow2Queue::pinned_entry(ClusterIndex guest, MappingPin& pin) {
  const Geometry& geometry = image_.geometry;
  for (;;) {
    const uint32_t generation = image_.pins.begin_lookup(shard_.index());
    Slice* slice = image_.slices.find(geometry.slice_of(guest));
    L2Entry entry = L2Entry::unsettled();
    if (slice) entry = slice->load(geometry.index_in_slice(guest));
    if (entry.kind(geometry, image_.has_zero_flag()) != EntryKind::kInvalid) {
      image_.pins.end_lookup_pinned(shard_.index());
      pin = MappingPin(*this, generation);
      co_return entry;
    }
    image_.pins.end_lookup(shard_.index(), generation);
    if (!slice && !image_.l1.load(geometry.l1_index(guest)).has_table())
      co_return L2Entry::unallocated();
    co_await load_map(geometry.guest_offset(guest));
  }
}

// Since the caller's lookup the cluster may have been written, zeroed or discarded; then what it
// holds now is as good an answer. It cannot have become absent over a backing image
// (guest_map_removal.cc).
Task<void> Qcow2Queue::read_compressed(GuestOffset at, MutableBytes target) {
  const Geometry& geometry = image_.geometry;
  CHECK_EQ(uint64_t{target.size()}, geometry.cluster_size());
  MappingPin pin;
  const L2Entry entry = co_await pinned_entry(geometry.guest_cluster(at), pin);
  switch (entry.kind(geometry, image_.has_zero_flag())) {
    case EntryKind::kInvalid:
      UNREACHABLE("the home shard refuses it");
    case EntryKind::kUnallocated:
    case EntryKind::kZero:
      fill_zero(target);
      break;
    case EntryKind::kData:
      co_await read_place(entry, target);
      break;
    case EntryKind::kSubclusters:
      co_await read_subclusters(entry, target);
      break;
    case EntryKind::kCompressed:
      co_await read_stream(geometry.guest_cluster(at), entry.compressed_place(geometry), target);
      break;
  }
}

Task<void> Qcow2Queue::read_place(L2Entry entry, MutableBytes target) {
  const HostOffset place(image_.place_in_data(entry.host().value()));
  co_await data_storage().read(place, MutableBuffers(target));
}

// Those that are unallocated lie over no backing image, as above.
Task<void> Qcow2Queue::read_subclusters(L2Entry entry, MutableBytes target) {
  if (entry.allocated() != 0) co_await read_place(entry, target);
  const size_t unit = image_.geometry.unit_size();
  for (uint32_t i = 0; i < image_.geometry.units_per_cluster(); ++i) {
    if (entry.subcluster_kind(i) != EntryKind::kData) fill_zero(target.subspan(i * unit, unit));
  }
}

Task<void> Qcow2Queue::read_stream(ClusterIndex guest, CompressedPlace place, MutableBytes target) {
  const auto length = static_cast<size_t>(place.length.value());
  Buffer buffer = co_await shard_.buffers().try_take(length);
  co_await storage_->read(place.offset, MutableBuffers(buffer.first(length)));
  Result<void> decompressed = decompress(buffer.first(length), target);
  if (decompressed.ok()) co_return;
  if (decompressed.error().kind == ErrorKind::kCorrupt) {
    co_await fail(damaged_stream(image_, guest, place.offset));
  }
  co_await fail(at_node(decompressed.error(), image_.node_id()));
}

Result<void> Qcow2Queue::decompress(Bytes stream, MutableBytes target) {
  if (image_.header.compression == Compression::kZstd) {
    if (!zstd_decoder_) zstd_decoder_ = std::make_unique<ZstdDecoder>();
    return zstd_decoder_->decompress(stream, target);
  }
  if (!inflater_) inflater_ = std::make_unique<Inflater>();
  return inflater_->decompress(stream, target);
}

}  // namespace ringdisk::qcow2
