// SPDX-License-Identifier: Apache-2.0
// Taking a round's state, and writing it in its order.
#include "qcow2/home/write_back.h"

#include <algorithm>

#include "qcow2/damage.h"

namespace ringdisk::qcow2 {
namespace {

// Memory for refcount blocks that lazy refcounts may leave unwritten.
constexpr uint64_t kLazyBytesMax = 16 * limits::kMiB;

}  // namespace

WriteBack::WriteBack(Image& image, StorageAccess& storage, StorageAccess* data, SliceCache& slices,
                     RefcountBlocks& refcounts, Allocator& allocator, Quarantine& quarantine)
    : image_(image),
      storage_(storage),
      data_(data),
      slices_(slices),
      refcounts_(refcounts),
      allocator_(allocator),
      quarantine_(quarantine),
      is_lazy_(image.options.is_lazy) {}

bool WriteBack::is_dirty() const {
  return slices_.dirty_count() != 0 || !slices_.new_tables().empty() || image_.l1.is_dirty() ||
         refcounts_.is_dirty();
}

Task<void> WriteBack::flush() {
  const uint64_t needed = rounds_begun_ + 1;  // a round that begins from now on
  MutexLock lock = co_await running_.lock();
  co_await check_writable(image_, "flush");
  if (rounds_done_ >= needed) co_return;
  ++rounds_begun_;
  Result<void> outcome = co_await run_round().result();
  if (!outcome.ok()) end_writing(image_, outcome.error());
  rounds_done_ = rounds_begun_;
  co_await std::move(outcome);
}

Task<void> WriteBack::run_round() {
  const Round round = take_round();
  co_await perform(round);
  slices_.write_back_done(round.slices, round.new_tables);
  refcounts_.write_back_done(round.refcounts);
  quarantine_.removal_is_durable(round.freed);
}

Task<void> WriteBack::perform(const Round& round) {
  // In the other file, so no flush of this one covers it.
  const bool is_hasty = image_.planted_bug == PlantedBug::kDataFileNotFlushed;
  if (data_ && !is_hasty) co_await data_->flush();
  const bool goes_stale =
      round.leaves_refcounts && (!round.entry_writes.empty() || !round.table_writes.empty());
  const bool is_late = image_.planted_bug == PlantedBug::kLateDirtyBit;
  if (goes_stale && !has_set_dirty_bit_ && !is_late) co_await write_dirty_bit(true);
  co_await write_all(round.refcounts.block_writes);
  co_await write_all(round.table_writes);
  if (image_.planted_bug != PlantedBug::kEntriesBeforeTheirClusters) co_await storage_.flush();
  if (!round.refcounts.table_writes.empty()) co_await write_refcount_table(round.refcounts);
  if (round.entry_writes.empty()) co_return;
  co_await write_all(round.entry_writes);
  co_await storage_.flush();
}

Task<void> WriteBack::write_dirty_bit(bool is_set) {
  std::vector<std::byte> field(8);
  const uint64_t bit = is_set ? kIncompatibleDirty : 0;
  store_be64(&field[0], image_.header.incompatible_features | bit);
  co_await storage_.write(HostOffset(kIncompatibleFeaturesAt), ConstBuffers(Bytes(field)));
  co_await storage_.flush();
  has_set_dirty_bit_ = is_set;
}

Task<void> WriteBack::clear_dirty_bit() {
  if (has_set_dirty_bit_) co_await write_dirty_bit(false);
}

Task<void> WriteBack::write_refcount_table(const RefcountBlocks::Dirty& refcounts) {
  co_await write_all(refcounts.table_writes);
  if (image_.planted_bug != PlantedBug::kHeaderBeforeRefcountTable) co_await storage_.flush();
  if (!refcounts.table_moved) co_return;
  // One sector, so it is torn nowhere: the old table or the new one.
  const uint64_t bytes = refcounts.table_writes.front().bytes.size();
  std::vector<std::byte> fields(12);
  store_be64(&fields[0], refcounts.table_writes.front().at.value());
  store_be32(&fields[8], static_cast<uint32_t>(bytes >> image_.geometry.cluster_bits()));
  co_await storage_.write(HostOffset(kRefcountTableFieldsAt), ConstBuffers(Bytes(fields)));
  co_await storage_.flush();
}

Task<void> WriteBack::write_one(const MetadataWrite& write) {
  Result<void> written =
      co_await storage_.write(write.at, ConstBuffers(Bytes(write.bytes))).result();
  if (image_.planted_bug == PlantedBug::kLostWriteError) co_return;
  co_await std::move(written);
}

Task<void> WriteBack::write_all(const std::vector<MetadataWrite>& writes) {
  for (size_t done = 0; done < writes.size();) {
    const size_t count = std::min<size_t>(writes.size() - done, limits::kPiecesInFlightMax);
    auto one = [&, done](size_t i) { return write_one(writes[done + i]); };
    co_await when_all(count, one);
    done += count;
  }
}

// --- the state of one moment

WriteBack::Round WriteBack::take_round() {
  Round round;
  round.slices = slices_.take_dirty();
  round.new_tables = slices_.new_tables();
  take_tables(round);
  take_slices(round);
  take_l1_entries(round);
  round.leaves_refcounts = may_leave_refcounts();
  if (!round.leaves_refcounts) {
    round.refcounts = refcounts_.take_dirty();
    for (ClusterRun table : allocator_.take_replaced_tables()) quarantine_.release(table);
  }
  round.freed = quarantine_.take_released();
  return round;
}

bool WriteBack::may_leave_refcounts() const {
  const uint64_t bytes = refcounts_.dirty_count() << image_.geometry.cluster_bits();
  return is_lazy_ && refcounts_.is_dirty() && bytes <= kLazyBytesMax;
}

void WriteBack::take_tables(Round& round) {
  for (uint64_t l1_index : round.new_tables) {
    round.table_writes.push_back({image_.l1.load(l1_index).table(), encode_table(l1_index)});
  }
}

// Slices that are not in memory are zeros: who loads one into a new table makes zeros, and a
// changed one stays.
std::vector<std::byte> WriteBack::encode_table(uint64_t l1_index) const {
  const Geometry& geometry = image_.geometry;
  std::vector<std::byte> table(geometry.cluster_size());
  const uint64_t first = geometry.slice_of(geometry.first_cluster_of(l1_index));
  for (uint64_t i = 0; i < geometry.slices_per_table(); ++i) {
    const Slice* slice = image_.slices.find(first + i);
    if (!slice) continue;
    encode_slice(*slice,
                 MutableBytes(table).subspan(i * geometry.slice_bytes(), geometry.slice_bytes()));
  }
  return table;
}

void WriteBack::encode_slice(const Slice& slice, MutableBytes target) const {
  for (uint64_t i = 0; i < image_.geometry.slice_entries(); ++i) {
    const L2Entry entry = slice.load(i);
    const L2Entry persistent = image_.has_data_file() ? persistent_in_data_file(entry)
                                                      : L2Entry(entry.persistent(), entry.bitmap());
    store_l2_entry(target, i, persistent, image_.geometry);
  }
}

void WriteBack::take_slices(Round& round) {
  const Geometry& geometry = image_.geometry;
  for (const Slice* slice : round.slices) {
    const uint64_t l1_index = geometry.l1_index_of_slice(slice->number);
    if (round.new_tables.contains(l1_index)) continue;
    const ByteCount before(geometry.slice_in_table(slice->number) * geometry.slice_bytes());
    MetadataWrite write{image_.l1.load(l1_index).table() + before, {}};
    write.bytes.resize(geometry.slice_bytes());
    encode_slice(*slice, write.bytes);
    round.entry_writes.push_back(std::move(write));
  }
}

// Sector by sector, so that nothing is read back to be merged.
void WriteBack::take_l1_entries(Round& round) {
  constexpr uint64_t kPerSector = 512 / kEntryBytes;
  std::set<uint64_t> sectors;
  for (uint64_t index : image_.l1.take_dirty()) sectors.insert(index / kPerSector);
  for (uint64_t sector : sectors) {
    const uint64_t first = sector * kPerSector;
    const uint64_t count = std::min(kPerSector, image_.l1.size() - first);
    MetadataWrite write{image_.header.l1_table + ByteCount(first * kEntryBytes), {}};
    write.bytes.resize(count * kEntryBytes);
    for (uint64_t i = 0; i < count; ++i) {
      store_be64(&write.bytes[i * kEntryBytes], image_.l1.load(first + i).raw());
    }
    round.entry_writes.push_back(std::move(write));
  }
}

}  // namespace ringdisk::qcow2
