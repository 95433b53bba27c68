// SPDX-License-Identifier: Apache-2.0
// What points at each cluster of the tail, whether its refcount agrees, and places for all of it.
#include "qcow2/compact/tail_plan.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "qcow2/compact/stream_packer.h"
#include "qcow2/damage.h"

namespace ringdisk::qcow2 {
namespace {

constexpr size_t kObstaclesMax = 8;
// Owners of clusters, beside 1 + TailKind.
constexpr uint8_t kNobody = 0;
constexpr uint8_t kRefcounts = 100;

}  // namespace

TailPlanner::TailPlanner(HomeParts parts, HostSpace& space, uint64_t first, uint64_t end)
    : parts_(parts),
      geometry_(parts.image.geometry),
      space_(space),
      first_(first),
      end_(std::max(first, end)) {}

// --- before the pointers are known

Task<void> TailPlanner::reserve(const TailRoots& roots) {
  space_.forget_reserved();
  for (const TailPointer& table : roots.tables) {
    const uint64_t begin = cluster_of(table.target);
    const uint64_t count = geometry_.clusters_of(table.length);
    if (begin + count <= first_ || !needs_a_run(table, geometry_)) continue;
    const ClusterRun run = co_await space_.reserve_run(begin, count);
    const uint64_t to = run.first.value() << geometry_.cluster_bits();
    rooms_.push_back({table.target, run.count == 0 ? 0 : to, table.length});
  }
  const uint64_t table = geometry_.host_cluster(parts_.refcounts.table_place()).value();
  const uint64_t count = parts_.refcounts.table_entries() / geometry_.refcount_table_entries(1);
  if (table + count <= first_) co_return;
  plan_.refcount_table = co_await space_.reserve_run(table, count);
  if (plan_.refcount_table.count == 0 && table >= space_.dense_end()) {
    plan_.stuck_clusters += count;
    plan_.obstacles.push_back("the refcount table, " + std::to_string(count) +
                              " clusters in one piece, finds no hole that holds it");
  }
}

Task<HoleSet> TailPlanner::find_holes(uint64_t wanted) {
  holes_ = co_await space_.find_holes(first_, wanted);
  std::vector<ClusterRun> all = holes_;
  for (const Room& room : rooms_) {
    const ClusterIndex to(cluster_of(room.to));
    if (room.to != 0) all.push_back({to, geometry_.clusters_of(room.length)});
  }
  if (plan_.refcount_table.count != 0) all.push_back(plan_.refcount_table);
  std::sort(all.begin(), all.end(),
            [](const ClusterRun& a, const ClusterRun& b) { return a.first < b.first; });
  HoleSet holes;
  holes.assign(std::move(all));
  co_return std::move(holes);
}

// --- what points at the tail

void TailPlanner::begin_at(uint64_t first) {
  first_ = std::min(first, end_);
  references_.assign(tail_clusters(), 0);
  owners_.assign(tail_clusters(), kNobody);
  stays_.assign(tail_clusters(), false);
}

Result<void> TailPlanner::refer(uint64_t begin, uint64_t end, uint32_t count, uint8_t owner) {
  for (uint64_t cluster = std::max(begin, first_); cluster < end; ++cluster) {
    // Nothing from end_ on has a refcount.
    if (cluster >= end_) return used_free_cluster(parts_.image, ClusterIndex(cluster));
    uint8_t& there = owners_[cluster - first_];
    if (there != kNobody && there != owner) {
      const Error error = Error::of(ErrorKind::kCorrupt, "compact",
                                    geometry_.host_offset(ClusterIndex(cluster)).value());
      return parts_.image.world.diagnostics.explain(
          error, parts_.image.node_id(),
          "cluster " + std::to_string(cluster) + " of the file belongs to two things at once" +
              advice(parts_.image));
    }
    there = owner;
    references_[cluster - first_] += count;
  }
  return {};
}

Task<void> TailPlanner::count_references(const TailScan& scan) {
  for (const TailPointer& one : scan.pointers()) {
    co_await refer(cluster_of(one.target), geometry_.clusters_of(one.end()), one.count,
                   static_cast<uint8_t>(1 + static_cast<uint8_t>(one.kind)));
  }
  const RefcountBlocks& refcounts = parts_.refcounts;
  const uint64_t table = geometry_.host_cluster(refcounts.table_place()).value();
  const uint64_t count = refcounts.table_entries() / geometry_.refcount_table_entries(1);
  co_await refer(table, table + count, 1, kRefcounts);
  for (uint64_t block = 0; block < refcounts.table_entries(); ++block) {
    if (!refcounts.has_block(block)) continue;
    const HostOffset place = co_await refcounts.block_place(block);
    const uint64_t cluster = geometry_.host_cluster(place).value();
    // One that lies behind all that is in use counts nothing, and goes.
    if (cluster < end_) co_await refer(cluster, cluster + 1, 1, kRefcounts);
  }
}

Task<void> TailPlanner::compare_refcounts() {
  for (uint64_t i = 0; i < tail_clusters(); ++i) {
    const ClusterIndex cluster(first_ + i);
    const uint64_t refcount = co_await space_.refcount_of(cluster);
    if (references_[i] > refcount) co_await fail(low_refcount(parts_.image, cluster));
    if (references_[i] == refcount) continue;
    stays_[i] = true;
    ++overcounted_;
  }
}

bool TailPlanner::stays(uint64_t from, uint64_t length) const {
  const uint64_t end = geometry_.clusters_of(from + length);
  for (uint64_t cluster = cluster_of(from); cluster < end; ++cluster) {
    if (is_in_tail(cluster) && stays_[cluster - first_]) return true;
  }
  return false;
}

void TailPlanner::note_stays(const char* what, uint64_t from) {
  if (plan_.obstacles.size() >= kObstaclesMax) return;
  plan_.obstacles.push_back(std::string(what) + " at byte " + std::to_string(from) +
                            " finds no hole that holds it in one piece");
}

// --- places

Task<TailPlan> TailPlanner::make(const TailScan& scan) {
  begin_at(scan.first());
  co_await count_references(scan);
  co_await compare_refcounts();
  gather(scan);
  co_await gather_blocks();
  place_pieces();
  place_streams(scan.pointers());
  if (overcounted_ != 0) {
    plan_.obstacles.push_back(std::to_string(overcounted_) +
                              " clusters count as used by more than what points at them"
                              "; 'check -r leaks' may free them");
  }
  std::sort(plan_.moves.begin(), plan_.moves.end(), [](const TailMove& a, const TailMove& b) {
    return a.kind != b.kind ? a.kind < b.kind : a.from < b.from;
  });
  co_return std::move(plan_);
}

// Pointers at one thing stand side by side.
void TailPlanner::gather(const TailScan& scan) {
  const std::vector<TailPointer>& pointers = scan.pointers();
  for (size_t first = 0, next = 0; first < pointers.size(); first = next) {
    const TailPointer& one = pointers[first];
    bool is_kept = one.is_kept;
    for (next = first + 1; next < pointers.size(); ++next) {
      const TailPointer& other = pointers[next];
      if (other.kind != one.kind || other.target != one.target || other.length != one.length) break;
      is_kept = is_kept && other.is_kept;
    }
    const TailMove move{one.target, 0, one.length, first, next - first, one.kind, is_kept};
    if (one.kind == TailKind::kEncryptionHeader) {
      leave_encryption_header(one);
    } else if (needs_a_run(one, geometry_)) {
      place_tables(pointers, first, next - first);
    } else if (stays(one.target, one.length)) {
      continue;
    } else if (one.kind == TailKind::kStream) {
      streams_.push_back(move);
    } else {
      pieces_.push_back({move});
    }
  }
}

// Tables in one piece are nobody's but their one owner's.
void TailPlanner::place_tables(const std::vector<TailPointer>& pointers, size_t first,
                               size_t count) {
  const TailPointer& table = pointers[first];
  auto room = std::find_if(rooms_.begin(), rooms_.end(), [&table](const Room& one) {
    return one.from == table.target && one.length == table.length;
  });
  bool is_shared = count != 1 || stays(table.target, table.length);
  for (uint64_t at = table.target; at < table.end(); at += geometry_.cluster_size()) {
    const uint64_t cluster = cluster_of(at);
    is_shared = is_shared || (is_in_tail(cluster) && references_[cluster - first_] != 1);
  }
  if (!is_shared && room != rooms_.end() && room->to != 0) {
    plan_.moves.push_back({table.target, room->to, table.length, first, count, table.kind});
    return;
  }
  leave_where_it_is(table);
  if (cluster_of(table.target) < space_.dense_end()) return;
  plan_.stuck_clusters += geometry_.clusters_of(table.length);
  note_stays(name_of(table.kind), table.target);
}

void TailPlanner::leave_where_it_is(const TailPointer& table) {
  for (uint64_t at = table.target; at < table.end(); at += geometry_.cluster_size()) {
    if (is_in_tail(cluster_of(at))) stays_[cluster_of(at) - first_] = true;
  }
}

void TailPlanner::leave_encryption_header(const TailPointer& header) {
  leave_where_it_is(header);
  if (cluster_of(header.target) < space_.dense_end()) return;
  if (plan_.obstacles.size() >= kObstaclesMax) return;
  plan_.obstacles.push_back("the encryption header at byte " + std::to_string(header.target) +
                            " is not moved, or a copy of its key slots would be left behind");
}

// A block of which nothing is left is taken out of the table at the end (HostSpace).
bool TailPlanner::counts_only_what_leaves(uint64_t block) const {
  const uint64_t begin = geometry_.first_cluster_of_block(block).value();
  if (begin < first_) return false;
  const uint64_t end = std::min(begin + geometry_.refcount_block_entries(), end_);
  for (uint64_t cluster = begin; cluster < end; ++cluster) {
    if (stays_[cluster - first_]) return false;
  }
  auto is_within = [begin, end](ClusterRun run) {
    return run.count != 0 && run.first.value() < end && run.first.value() + run.count > begin;
  };
  if (is_within(plan_.refcount_table)) return false;
  return std::none_of(rooms_.begin(), rooms_.end(), [&](const Room& room) {
    return is_within({ClusterIndex(cluster_of(room.to)), cluster_of(room.length)});
  });
}

Task<void> TailPlanner::gather_blocks() {
  for (uint64_t block = 0; block < parts_.refcounts.table_entries(); ++block) {
    if (!parts_.refcounts.has_block(block) || counts_only_what_leaves(block)) continue;
    const HostOffset place = co_await parts_.refcounts.block_place(block);
    if (!is_in_tail(cluster_of(place.value()))) continue;
    if (stays(place.value(), geometry_.cluster_size())) continue;
    Piece piece;
    piece.move.from = place.value();
    piece.move.length = geometry_.cluster_size();
    piece.block = block;
    piece.is_block = true;
    pieces_.push_back(piece);
  }
}

void TailPlanner::place_pieces() {
  std::sort(pieces_.begin(), pieces_.end(),
            [](const Piece& a, const Piece& b) { return a.move.from < b.move.from; });
  uint64_t room = 0;
  for (const ClusterRun& hole : holes_) room += hole.count;
  size_t hole = 0;
  for (size_t i = pieces_.size() - std::min<uint64_t>(room, pieces_.size()); i < pieces_.size();
       ++i) {
    while (holes_[hole].count == 0) ++hole;
    const ClusterIndex to = holes_[hole].first;
    holes_[hole] = {to + 1, holes_[hole].count - 1};
    Piece& piece = pieces_[i];
    piece.move.to = geometry_.host_offset(to).value();
    if (piece.is_block) {
      plan_.blocks.push_back({piece.block, ClusterIndex(cluster_of(piece.move.from)), to});
    } else {
      plan_.moves.push_back(piece.move);
    }
  }
}

// --- streams

// As many of the highest as find room.
void TailPlanner::place_streams(const std::vector<TailPointer>& pointers) {
  size_t fits = streams_.size(), begin = 0;
  while (begin < fits) {
    const size_t middle = begin + (fits - begin) / 2;
    if (try_streams(pointers, middle)) {
      fits = middle;
    } else {
      begin = middle + 1;
    }
  }
  try_streams(pointers, fits);
  plan_.moves.insert(plan_.moves.end(), streams_.begin() + static_cast<ptrdiff_t>(fits),
                     streams_.end());
}

bool TailPlanner::try_streams(const std::vector<TailPointer>& pointers, size_t first_stream) {
  StreamPacker packer(geometry_, holes_);
  for (size_t i = first_stream; i < streams_.size(); ++i) {
    TailMove& stream = streams_[i];
    uint64_t count = 0;
    for (size_t k = 0; k < stream.pointers; ++k) count += pointers[stream.first_pointer + k].count;
    const std::optional<uint64_t> to = packer.place(stream.from, stream.length, count);
    if (!to) return false;
    stream.to = *to;
  }
  return true;
}

}  // namespace ringdisk::qcow2
