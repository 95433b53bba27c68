// SPDX-License-Identifier: Apache-2.0
// One L2 table after another: new clusters and their refcounts, a flush, the table, a flush, what
// it has given up.
#include "qcow2/edit/zero_expansion.h"

#include "base/diagnostics.h"
#include "qcow2/damage.h"
#include "qcow2/describe.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

using Table = TableEditor::Table;

// Expands the zero clusters of one image; lives in the frame of expand_zero_clusters.
class ZeroExpander {
 public:
  ZeroExpander(HomeParts parts, CancelToken cancel,
               const std::function<void(AmendProgress)>& on_progress)
      : parts_(parts), tables_(parts), cancel_(cancel), on_progress_(on_progress) {}

  Task<void> run();

 private:
  struct L1Place {
    HostOffset at;
    uint64_t entries = 0;
  };

  Task<std::vector<L1Place>> find_tables();
  Task<void> expand_all(const std::vector<L1Place>& places);
  Task<void> expand_below(L1Place place);
  Task<void> expand_table(L1Entry entry);
  Task<uint64_t> expanded_entry(L2Entry entry, uint64_t references);
  Task<uint64_t> references_of(ClusterIndex cluster);
  Task<void> count(ClusterIndex cluster, uint64_t references);
  Task<void> release(const std::vector<ClusterIndex>& clusters, uint64_t references);

  HomeParts parts_;
  TableEditor tables_;
  const CancelToken cancel_;
  const std::function<void(AmendProgress)>& on_progress_;
  AmendProgress progress_;
};

// What is refused is refused before anything changes: the dirty bit of an image whose damage no
// repair can mend would lock everybody out.
Task<std::vector<ZeroExpander::L1Place>> ZeroExpander::find_tables() {
  const Header& header = parts_.image.header;
  std::vector<L1Place> places;
  places.push_back({header.l1_table, header.l1_size});
  const SnapshotTable table =
      co_await read_snapshots(parts_.storage, header, parts_.image.world.diagnostics);
  for (const Snapshot& snapshot : table.snapshots) {
    places.push_back({snapshot.l1_table, snapshot.l1_size});
  }
  for (const L1Place& place : places) {
    co_await check_table_place(parts_.image, place.at, place.entries);
    progress_.total += place.entries;
  }
  co_return std::move(places);
}

Task<uint64_t> ZeroExpander::references_of(ClusterIndex cluster) {
  const Geometry& geometry = parts_.image.geometry;
  const uint64_t block = geometry.refcount_block_of(cluster);
  if (!parts_.refcounts.has_block(block)) co_await fail(low_refcount(parts_.image, cluster));
  co_await parts_.refcounts.load(block);
  const uint64_t references = parts_.refcounts.get(cluster);
  if (references == 0) co_await fail(low_refcount(parts_.image, cluster));
  co_return references;
}

// A new cluster, which is counted once so far.
Task<void> ZeroExpander::count(ClusterIndex cluster, uint64_t references) {
  if (references == 1) co_return;
  co_await parts_.refcounts.load(parts_.image.geometry.refcount_block_of(cluster));
  parts_.refcounts.set(cluster, references);
}

// What a zero entry of a table with so many references becomes.
Task<uint64_t> ZeroExpander::expanded_entry(L2Entry entry, uint64_t references) {
  const Geometry& geometry = parts_.image.geometry;
  if (!parts_.image.header.has_backing) co_return L2Entry::unallocated().raw();
  const bool is_ours = entry.has_host() && entry.is_copied() && references == 1;
  HostOffset place = entry.host();
  bool reads_zero = false;
  if (!is_ours) {
    const NewClusters made = co_await parts_.allocator.allocate(1);
    co_await count(made.run.first, references);
    place = geometry.host_offset(made.run.first);
    reads_zero = made.reads_zero;
  }
  if (!reads_zero) {
    const HostRange cluster(place, ByteCount(geometry.cluster_size()));
    co_await parts_.storage.write_zeroes(cluster, ZeroOptions());
  }
  co_return references == 1 ? L2Entry::owned(place).raw() : place.value();
}

Task<void> ZeroExpander::release(const std::vector<ClusterIndex>& clusters, uint64_t references) {
  for (ClusterIndex cluster : clusters) {
    for (uint64_t i = 0; i < references; ++i) parts_.quarantine.release(cluster);
  }
  const Table nothing;
  const std::vector<ClusterRun> no_runs;
  co_await tables_.lower(nothing, no_runs);
}

Task<void> ZeroExpander::expand_table(L1Entry l1_entry) {
  const Geometry& geometry = parts_.image.geometry;
  if (!l1_entry.is_valid(geometry)) {
    co_await fail(damaged_entry(parts_.image, "L1", l1_entry.raw()));
  }
  if (!l1_entry.has_table()) co_return;
  Table table = co_await tables_.read_table(l1_entry.table(), geometry.l2_entries());
  const uint64_t references = co_await references_of(geometry.host_cluster(l1_entry.table()));
  std::vector<ClusterIndex> given_up;
  bool is_changed = false;
  for (uint64_t& raw : table) {
    const L2Entry entry(raw, 0);
    const EntryKind kind = entry.kind(geometry, true);
    if (kind == EntryKind::kInvalid) {
      co_await fail(damaged_entry(parts_.image, "L2", raw));
    }
    if (kind != EntryKind::kZero) continue;
    const uint64_t expanded = co_await expanded_entry(entry, references);
    is_changed = true;
    if (entry.has_host() && L2Entry(expanded, 0).host() != entry.host()) {
      given_up.push_back(geometry.host_cluster(entry.host()));
    }
    raw = expanded;
  }
  if (!is_changed) co_return;
  co_await tables_.flush();
  co_await tables_.write_table(l1_entry.table(), table);
  co_await tables_.flush();
  co_await release(given_up, references);
}

Task<void> ZeroExpander::expand_below(L1Place place) {
  const Table l1 = co_await tables_.read_table(place.at, place.entries);
  for (uint64_t raw : l1) {
    if (cancel_.is_cancelled()) co_await fail(Error::of(ErrorKind::kCancelled, "amend"));
    const L1Entry entry(raw);
    co_await expand_table(entry);
    ++progress_.done;
    if (on_progress_ && entry.has_table()) on_progress_(progress_);
    if (entry.has_table()) co_await NextTurn(Shard::current());
  }
}

Task<void> ZeroExpander::expand_all(const std::vector<L1Place>& places) {
  for (L1Place place : places) co_await expand_below(place);
}

// Called off between two tables it has left nothing half done.
Task<void> ZeroExpander::run() {
  const std::vector<L1Place> places = co_await find_tables();
  co_await tables_.set_dirty(true);
  Result<void> expanded = co_await expand_all(places).result();
  const bool is_whole = expanded.ok() || expanded.error().kind == ErrorKind::kCancelled;
  if (is_whole) co_await tables_.set_dirty(false);
  co_await std::move(expanded);
}

}  // namespace

Task<void> check_snapshots_for_version2(HomeParts parts) {
  constexpr uint64_t kVmStateBytesMax = uint64_t{1} << 32;
  const Image& image = parts.image;
  const SnapshotTable table =
      co_await read_snapshots(parts.storage, image.header, image.world.diagnostics);
  for (const Snapshot& snapshot : table.snapshots) {
    const uint64_t size = image.header.size.value();
    const bool fits =
        snapshot.disk_size.value_or(size) == size && snapshot.vm_state_size < kVmStateBytesMax;
    if (fits) continue;
    co_await fail(image.world.diagnostics.explain(
        Error::of(ErrorKind::kUnsupported, "amend"), image.node_id(),
        "compat=0.10 cannot record snapshot '" + snapshot.name +
            "', whose disk had another size or whose VM state is too large; delete it first"));
  }
}

Task<void> expand_zero_clusters(HomeParts parts, CancelToken cancel,
                                const std::function<void(AmendProgress)>& on_progress) {
  ZeroExpander expander(parts, cancel, on_progress);
  co_await expander.run();
}

}  // namespace ringdisk::qcow2
