// SPDX-License-Identifier: Apache-2.0
// Reading refcounts block by block.
#include "qcow2/compact/host_space.h"

#include <algorithm>

namespace ringdisk::qcow2 {

Task<uint64_t> HostSpace::refcount_of(ClusterIndex cluster) {
  const uint64_t block = geometry_.refcount_block_of(cluster);
  if (!has_block(block)) co_return uint64_t{0};
  co_await parts_.refcounts.load(block);
  co_return parts_.refcounts.get(cluster);
}

// Of the clusters that `block` counts, those from `first_cluster` on.
Task<uint64_t> HostSpace::count_used(uint64_t block, uint64_t first_cluster) {
  co_await parts_.refcounts.load(block);
  const Bytes counters = parts_.refcounts.counters_of(block);
  const uint64_t base = geometry_.first_cluster_of_block(block).value();
  const uint64_t from = std::max(base, first_cluster) - base;
  uint64_t used = 0;
  for (uint64_t i = from; i < geometry_.refcount_block_entries(); ++i) {
    if (load_refcount(counters, geometry_.refcount_order(), i) != 0) ++used;
  }
  co_return used;
}

Task<void> HostSpace::survey() {
  used_ = 0;
  used_of_block_.assign(parts_.refcounts.table_entries(), 0);
  for (uint64_t block = 0; block < used_of_block_.size(); ++block) {
    if (!has_block(block)) continue;
    used_of_block_[block] = co_await count_used(block, 0);
    used_ += used_of_block_[block];
  }
  co_await find_end();
}

// The blocks at the end that count nothing but each other. One may lie anywhere among what the
// others count, so all that may go are taken together, and fewer until none of them counts more.
Task<void> HostSpace::find_end() {
  droppable_.clear();
  uint64_t first = used_of_block_.size();
  for (; first > 0 && used_of_block_[first - 1] <= used_of_block_.size(); --first) {
    if (has_block(first - 1)) droppable_.push_back(first - 1);
  }
  for (size_t sound = 0;; droppable_.resize(sound)) {
    co_await note_droppable_places();
    sound = co_await count_droppable();
    if (sound == droppable_.size()) break;
  }
  end_ = 0;
  uint64_t block = droppable_.empty() ? used_of_block_.size() : droppable_.back();
  while (end_ == 0 && block-- > 0) {
    if (has_block(block)) end_ = co_await needed_end_of(block);
  }
}

Task<void> HostSpace::note_droppable_places() {
  droppable_places_.clear();
  for (uint64_t block : droppable_) {
    const HostOffset place = co_await parts_.refcounts.block_place(block);
    droppable_places_.insert(geometry_.host_cluster(place).value());
  }
}

// How many of them, from the last one on, count nothing but places of droppable ones.
Task<size_t> HostSpace::count_droppable() {
  for (size_t i = 0; i < droppable_.size(); ++i) {
    const uint64_t needed = co_await needed_end_of(droppable_[i]);
    if (needed != 0) co_return i;
  }
  co_return droppable_.size();
}

Task<uint64_t> HostSpace::needed_end_of(uint64_t block) {
  co_await parts_.refcounts.load(block);
  const Bytes counters = parts_.refcounts.counters_of(block);
  const uint64_t base = geometry_.first_cluster_of_block(block).value();
  for (uint64_t i = geometry_.refcount_block_entries(); i-- > 0;) {
    if (load_refcount(counters, geometry_.refcount_order(), i) == 0) continue;
    if (!droppable_places_.contains(base + i)) co_return base + i + 1;
  }
  co_return uint64_t{0};
}

// As many clusters that are counted lie before it as are in use: each of them is either in use or a
// hole. A refcount block whose clusters all lie behind it goes with them.
uint64_t HostSpace::dense_end() const {
  const uint64_t per_block = geometry_.refcount_block_entries();
  uint64_t wanted = used_;
  for (int round = 0; round < 2; ++round) {
    uint64_t counted = 0, at = end_;
    for (uint64_t block = 0; block < used_of_block_.size(); ++block) {
      if (!has_block(block)) continue;
      if (counted + per_block >= wanted) {
        at = geometry_.first_cluster_of_block(block).value() + (wanted - counted);
        break;
      }
      counted += per_block;
    }
    if (round == 1) return std::min(at, end_);
    uint64_t leaving = 0;
    for (uint64_t block = 0; block < used_of_block_.size(); ++block) {
      if (!has_block(block) || geometry_.first_cluster_of_block(block).value() < at) continue;
      const Result<HostOffset> place = parts_.refcounts.block_place(block);
      if (place.ok() && geometry_.host_cluster(place.value()).value() >= at) ++leaving;
    }
    wanted -= std::min(leaving, wanted);
  }
  return end_;
}

Task<uint64_t> HostSpace::used_from(uint64_t first) {
  uint64_t used = 0;
  for (uint64_t block = 0; block < used_of_block_.size(); ++block) {
    const uint64_t base = geometry_.first_cluster_of_block(block).value();
    if (!has_block(block) || base + geometry_.refcount_block_entries() <= first) continue;
    if (base >= first) {
      used += used_of_block_[block];
    } else {
      const uint64_t part = co_await count_used(block, first);
      used += part;
    }
  }
  co_return used;
}

bool HostSpace::is_reserved(uint64_t cluster) const {
  return std::any_of(reserved_.begin(), reserved_.end(), [cluster](const ClusterRun& run) {
    return cluster - run.first.value() < run.count;
  });
}

// --- holes

Task<void> HostSpace::collect_holes(uint64_t block, uint64_t limit, uint64_t wanted,
                                    std::vector<ClusterRun>& holes, uint64_t& found) {
  co_await parts_.refcounts.load(block);
  const Bytes counters = parts_.refcounts.counters_of(block);
  const uint64_t base = geometry_.first_cluster_of_block(block).value();
  const uint64_t stop = std::min(limit - base, geometry_.refcount_block_entries());
  for (uint64_t i = 0; i < stop && found < wanted; ++i) {
    if (load_refcount(counters, geometry_.refcount_order(), i) != 0) continue;
    if (base + i == 0 || is_reserved(base + i)) continue;
    if (!holes.empty() && holes.back().first.value() + holes.back().count == base + i) {
      ++holes.back().count;
    } else {
      holes.push_back({ClusterIndex(base + i), 1});
    }
    ++found;
  }
}

Task<std::vector<ClusterRun>> HostSpace::find_holes(uint64_t limit, uint64_t wanted) {
  std::vector<ClusterRun> holes;
  uint64_t found = 0;
  for (uint64_t block = 0; block < used_of_block_.size() && found < wanted; ++block) {
    if (geometry_.first_cluster_of_block(block).value() >= limit) break;
    if (!has_block(block) || used_of_block_[block] == geometry_.refcount_block_entries()) continue;
    co_await collect_holes(block, limit, wanted, holes, found);
  }
  co_return std::move(holes);
}

Task<ClusterRun> HostSpace::reserve_run(uint64_t limit, uint64_t count) {
  ClusterRun run{ClusterIndex(0), 0};
  for (uint64_t block = 0; block < used_of_block_.size(); ++block) {
    const uint64_t base = geometry_.first_cluster_of_block(block).value();
    if (base >= limit) break;
    if (!has_block(block)) continue;
    std::vector<ClusterRun> holes;
    uint64_t found = 0;
    co_await collect_holes(block, limit, ~uint64_t{0}, holes, found);
    for (const ClusterRun& hole : holes) {
      if (run.count != 0 && run.first + run.count == hole.first) {
        run.count += hole.count;
      } else {
        run = hole;
      }
      if (run.count < count) continue;
      run.count = count;
      reserved_.push_back(run);
      co_return run;
    }
  }
  co_return ClusterRun{ClusterIndex(0), 0};
}

// --- refcount blocks

// The entries of the table go first, so that no block that is named lies where nothing counts it.
Task<void> HostSpace::drop_empty_blocks() {
  if (droppable_.empty()) co_return;
  for (uint64_t block : droppable_) {
    parts_.refcounts.drop_block(block);
    used_ -= std::exchange(used_of_block_[block], 0);
  }
  co_await parts_.write_back.flush();
  for (uint64_t place : droppable_places_) {
    const uint64_t block = geometry_.refcount_block_of(ClusterIndex(place));
    if (!has_block(block)) continue;
    co_await parts_.refcounts.load(block);
    parts_.refcounts.set(ClusterIndex(place), 0);
    --used_of_block_[block];
    --used_;
  }
  droppable_.clear();
  droppable_places_.clear();
  co_await parts_.write_back.flush();
}

}  // namespace ringdisk::qcow2
