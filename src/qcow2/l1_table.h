// SPDX-License-Identifier: Apache-2.0
// The active L1 table in memory: atomics that every shard reads and the home shard writes. It never
// grows without a resize. Which entries differ from the disk is the home shard's affair.
#pragma once

#include <atomic>
#include <cstdint>
#include <set>
#include <vector>

#include "base/bytes.h"
#include "base/endian.h"
#include "qcow2/layout/l2_entry.h"

namespace ringdisk::qcow2 {

class L1Table {
 public:
  // `table` as it lies on the disk: a multiple of 8 bytes.
  explicit L1Table(Bytes table) : entries_(table.size() / kEntryBytes) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      entries_[i].store(load_be64(&table[i * kEntryBytes]), std::memory_order_relaxed);
    }
  }

  uint64_t size() const { return entries_.size(); }  // any shard
  // Any shard.
  L1Entry load(uint64_t index) const {
    return L1Entry(entries_[index].load(std::memory_order_seq_cst));
  }

  // --- home shard
  void store(uint64_t index, L1Entry entry) {
    entries_[index].store(entry.raw(), std::memory_order_seq_cst);
    dirty_.insert(index);
  }
  // The entries that differ from the disk, in order; afterwards they count as written.
  std::set<uint64_t> take_dirty() { return std::exchange(dirty_, {}); }
  bool is_dirty() const { return !dirty_.empty(); }

 private:
  std::vector<std::atomic<uint64_t>> entries_;  // any shard
  std::set<uint64_t> dirty_;                    // home shard only
};

}  // namespace ringdisk::qcow2
