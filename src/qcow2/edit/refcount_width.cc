// SPDX-License-Identifier: Apache-2.0
// Two passes over the old blocks: one finds which new ones are needed and whether all counts fit,
// the other writes them.
#include "qcow2/edit/refcount_width.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "qcow2/describe.h"
#include "qcow2/home/free_clusters.h"
#include "qcow2/layout/l2_entry.h"
#include "qcow2/layout/refcount_block.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kRefcountOrderAt = 96;
constexpr uint64_t kFirstSectorBytes = 512;
constexpr uint64_t kTableEntriesMax = limits::kQcow2RefcountTableBytesMax / kEntryBytes;

// Converts the refcounts of one image; lives in the frame of change_refcount_width.
class WidthChange {
 public:
  WidthChange(const World& world, StorageAccess& storage, uint32_t order, CancelToken cancel,
              const std::function<void(AmendProgress)>& on_progress)
      : world_(world),
        storage_(storage),
        order_(order),
        cancel_(cancel),
        on_progress_(on_progress) {}

  Task<void> run();

 private:
  Task<void> load_table();
  Task<void> load_block(uint64_t block);
  uint64_t count_of(uint64_t cluster) const;
  bool is_old_table(uint64_t cluster) const;
  Task<void> convert();
  Task<void> find_needed();
  Result<void> note_block(uint64_t block);
  Result<void> note_count(uint64_t cluster, uint64_t count);
  Result<void> lay_out();
  void need(uint64_t first_cluster, uint64_t count);
  uint64_t new_clusters() const { return table_clusters_ + needed_.size(); }
  Task<void> write_blocks();
  Task<void> fill_block(uint64_t block, MutableBytes bytes);
  Task<void> write_table();
  Task<void> switch_tables();
  Task<void> give_old_space_back();
  Task<void> take_turn();
  Error refuse(ErrorKind kind, std::string why) const {
    return world_.diagnostics.explain(Error::of(kind, "change refcount width"), storage_.node_id(),
                                      std::move(why));
  }

  const World& world_;
  StorageAccess& storage_;
  const uint32_t order_;
  const CancelToken cancel_;
  const std::function<void(AmendProgress)>& on_progress_;
  AmendProgress progress_;

  // the old
  Header header_;
  Geometry geometry_{16, 4};
  std::vector<uint64_t> table_;         // raw entries
  std::vector<uint64_t> block_places_;  // clusters, sorted
  ClusterRun table_run_;
  uint64_t loaded_ = ~uint64_t{0};  // the block in block_
  std::vector<std::byte> block_;

  // the new
  Geometry new_geometry_{16, 4};
  std::vector<uint64_t> needed_;  // blocks, ascending
  uint64_t end_ = 0;              // behind the last cluster in use
  uint64_t first_ = 0, table_clusters_ = 0;
};

Task<void> WidthChange::load_table() {
  header_ = co_await read_header(storage_, world_.diagnostics);
  geometry_ = header_.geometry();
  new_geometry_ = Geometry(header_.cluster_bits, order_, header_.has_extended_l2());
  std::vector<std::byte> bytes(uint64_t{header_.refcount_table_clusters} << header_.cluster_bits);
  co_await storage_.read(header_.refcount_table, MutableBuffers(MutableBytes(bytes)));
  table_.resize(bytes.size() / kEntryBytes);
  table_run_ = {geometry_.host_cluster(header_.refcount_table), header_.refcount_table_clusters};
  for (size_t i = 0; i < table_.size(); ++i) {
    table_[i] = load_be64(&bytes[i * kEntryBytes]);
    if (table_[i] == 0) continue;
    const HostOffset at(table_[i]);
    const bool is_right =
        at.is_aligned(geometry_.cluster_size()) && at.value() < storage_.size().value();
    if (!is_right) {
      co_await fail(refuse(ErrorKind::kCorrupt,
                           "the refcount table is damaged; 'ringdisk check -r all' mends it"));
    }
    block_places_.push_back(geometry_.host_cluster(at).value());
  }
  std::ranges::sort(block_places_);
  progress_.total = 2 * block_places_.size();
}

Task<void> WidthChange::load_block(uint64_t block) {
  if (loaded_ == block) co_return;
  loaded_ = ~uint64_t{0};
  block_.resize(geometry_.cluster_size());
  co_await storage_.read(HostOffset(table_[block]), MutableBuffers(MutableBytes(block_)));
  loaded_ = block;
}

Task<void> WidthChange::take_turn() {
  ++progress_.done;
  if (on_progress_) on_progress_(progress_);
  co_await NextTurn(Shard::current());
  if (cancel_.is_cancelled()) co_await fail(Error::of(ErrorKind::kCancelled, "amend"));
}

bool WidthChange::is_old_table(uint64_t cluster) const {
  const uint64_t first = table_run_.first.value();
  if (cluster >= first && cluster - first < table_run_.count) return true;
  return std::ranges::binary_search(block_places_, cluster);
}

// What the new blocks say of a cluster that the loaded block counts.
uint64_t WidthChange::count_of(uint64_t cluster) const {
  const uint64_t index = geometry_.index_in_refcount_block(ClusterIndex(cluster));
  const uint64_t count = load_refcount(block_, geometry_.refcount_order(), index);
  return count != 0 && is_old_table(cluster) ? count - 1 : count;
}

// --- first pass

Task<void> WidthChange::find_needed() {
  for (uint64_t block = 0; block < table_.size(); ++block) {
    if (table_[block] == 0) continue;
    co_await load_block(block);
    co_await note_block(block);
    co_await take_turn();
  }
}

Result<void> WidthChange::note_block(uint64_t block) {
  const uint64_t first = geometry_.first_cluster_of_block(block).value();
  for (uint64_t i = 0; i < geometry_.refcount_block_entries(); ++i) {
    const uint64_t count = count_of(first + i);
    if (count != 0) RETURN_IF_ERROR(note_count(first + i, count));
  }
  return {};
}

Result<void> WidthChange::note_count(uint64_t cluster, uint64_t count) {
  if (count > new_geometry_.refcount_max()) {
    const uint64_t at = geometry_.host_offset(ClusterIndex(cluster)).value();
    return refuse(ErrorKind::kLimit, "the cluster at byte " + std::to_string(at) + " is used " +
                                         std::to_string(count) + " times, which " +
                                         std::to_string(new_geometry_.refcount_bits()) +
                                         " bits cannot count; delete snapshots, or choose a larger "
                                         "refcount_bits");
  }
  end_ = cluster + 1;
  need(cluster, 1);
  return {};
}

// Clusters come in ascending order, but for those of the new tables.
void WidthChange::need(uint64_t first_cluster, uint64_t count) {
  const uint64_t last = new_geometry_.refcount_block_of(ClusterIndex(first_cluster + count - 1));
  uint64_t block = new_geometry_.refcount_block_of(ClusterIndex(first_cluster));
  for (; block <= last; ++block) {
    if (!needed_.empty() && needed_.back() == block) continue;
    auto place = std::ranges::lower_bound(needed_, block);
    if (place == needed_.end() || *place != block) needed_.insert(place, block);
  }
}

// --- places

// The new tables count themselves, and may need more of them for it: until it goes round.
Result<void> WidthChange::lay_out() {
  const uint32_t bits = geometry_.cluster_bits();
  first_ = end_;
  if (storage_.limits().grows) {
    first_ = std::max(first_, geometry_.clusters_of(storage_.size().value()));
  }
  need(first_, 1);
  for (;;) {
    const uint64_t entries = needed_.back() + 1;
    if (entries > kTableEntriesMax) {
      return refuse(ErrorKind::kLimit,
                    "the refcount table would be too large at this width; a larger cluster_size "
                    "has room");
    }
    table_clusters_ = geometry_.clusters_of(entries * kEntryBytes);
    const size_t before = needed_.size();
    need(first_, new_clusters());
    if (needed_.size() == before) break;
  }
  const uint64_t end = first_ + new_clusters();
  if (!storage_.limits().grows && end > storage_.size().value() >> bits) {
    return refuse(ErrorKind::kNoSpace, "there is no space behind the image for new refcounts");
  }
  if (end > kHostEnd >> bits) return Error::of(ErrorKind::kNoSpace, "change refcount width");
  return {};
}

// --- second pass

Task<void> WidthChange::write_blocks() {
  std::vector<std::byte> bytes(geometry_.cluster_size());
  for (size_t i = 0; i < needed_.size(); ++i) {
    fill_zero(bytes);
    co_await fill_block(needed_[i], bytes);
    const HostOffset at = geometry_.host_offset(ClusterIndex(first_ + table_clusters_ + i));
    co_await storage_.write(at, ConstBuffers(Bytes(bytes)));
  }
}

Task<void> WidthChange::fill_block(uint64_t block, MutableBytes bytes) {
  const uint64_t begin = new_geometry_.first_cluster_of_block(block).value();
  const uint64_t end = begin + new_geometry_.refcount_block_entries();
  const uint64_t new_end = first_ + new_clusters();
  for (uint64_t cluster = begin; cluster < end;) {
    const uint64_t old_block = geometry_.refcount_block_of(ClusterIndex(cluster));
    const uint64_t stop = std::min(end, geometry_.first_cluster_of_block(old_block + 1).value());
    const bool has_old = old_block < table_.size() && table_[old_block] != 0;
    if (has_old) co_await load_block(old_block);
    for (; cluster < stop; ++cluster) {
      const bool is_new = cluster >= first_ && cluster < new_end;
      const uint64_t count = is_new ? 1 : has_old ? count_of(cluster) : 0;
      store_refcount(bytes, order_, cluster - begin, count);
    }
    if (has_old) co_await take_turn();
  }
}

Task<void> WidthChange::write_table() {
  std::vector<std::byte> bytes(table_clusters_ << geometry_.cluster_bits());
  for (size_t i = 0; i < needed_.size(); ++i) {
    const ClusterIndex place(first_ + table_clusters_ + i);
    store_be64(&bytes[needed_[i] * kEntryBytes], geometry_.host_offset(place).value());
  }
  const HostOffset at = geometry_.host_offset(ClusterIndex(first_));
  co_await storage_.write(at, ConstBuffers(Bytes(bytes)));
}

// --- the switch

Task<void> WidthChange::switch_tables() {
  std::vector<std::byte> sector(kFirstSectorBytes);
  co_await storage_.read(HostOffset(0), MutableBuffers(MutableBytes(sector)));
  store_be64(&sector[kRefcountTableFieldsAt], geometry_.host_offset(ClusterIndex(first_)).value());
  store_be32(&sector[kRefcountTableFieldsAt + 8], static_cast<uint32_t>(table_clusters_));
  store_be32(&sector[kRefcountOrderAt], order_);
  co_await storage_.write(HostOffset(0), ConstBuffers(Bytes(sector)));
  co_await storage_.flush();
}

// Hints to the storage; that they fail changes nothing.
Task<void> WidthChange::give_old_space_back() {
  if (!storage_.limits().unmaps) co_return;
  const HostRange table(header_.refcount_table,
                        ByteCount(table_run_.count << geometry_.cluster_bits()));
  Result<void> ignored = co_await storage_.discard(table).result();
  for (uint64_t cluster : block_places_) {
    const HostRange block(geometry_.host_offset(ClusterIndex(cluster)),
                          ByteCount(geometry_.cluster_size()));
    ignored = co_await storage_.discard(block).result();
  }
  static_cast<void>(ignored.ok());
}

Task<void> WidthChange::convert() {
  co_await write_blocks();
  co_await write_table();
  co_await storage_.flush();
}

// Before the switch nothing points behind the old end, so it can be cut off again.
Task<void> WidthChange::run() {
  co_await load_table();
  co_await find_needed();
  co_await lay_out();
  const ByteCount size_before = storage_.size();
  Result<void> converted = co_await convert().result();
  if (!converted.ok()) {
    if (storage_.limits().grows) {
      Result<void> cut = co_await storage_.resize(size_before).result();
      static_cast<void>(cut.ok());  // the first error is the one that matters
    }
    co_await std::move(converted);
  }
  co_await switch_tables();
  co_await give_old_space_back();
}

}  // namespace

Task<void> change_refcount_width(const World& world, SharedStorage& storage,
                                 uint32_t refcount_order, CancelToken cancel,
                                 const std::function<void(AmendProgress)>& on_progress) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  WidthChange change(world, *access, refcount_order, cancel, on_progress);
  co_await change.run();
}

}  // namespace ringdisk::qcow2
