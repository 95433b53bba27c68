// SPDX-License-Identifier: Apache-2.0
// SliceEviction: which slice leaves when memory is full. Scan-resistant, after Johnson and Shasha's
// 2Q (1994): a slice that comes for the first time queues in `probation` and leaves in order of
// arrival, however often it is used meanwhile, since one pass over a disk uses every slice many
// times in a row. Its number is remembered for a while; if it comes back, it is worth keeping and
// joins `protected`, where a clock goes round.
//
//   new ──> [ probation: a quarter, first in first out ] ──> gone, number remembered ──> back?
//        ──> [ protected: clock ]
//
// Home shard only. The lists hold slices that the cache owns.
#pragma once

#include <cstdint>
#include <deque>
#include <unordered_set>

#include "qcow2/slice_directory.h"

namespace ringdisk::qcow2 {

class SliceEviction {
 public:
  explicit SliceEviction(uint64_t slices_max) : slices_max_(slices_max) {}

  uint64_t count() const { return probation_count_ + protected_count_; }
  bool is_full() const { return count() > slices_max_; }

  void insert(Slice& slice) {
    slice.is_protected = remembered_.contains(slice.number);
    if (slice.is_protected) {
      protected_.push_back(slice);
      ++protected_count_;
    } else {
      probation_.push_back(slice);
      ++probation_count_;
    }
  }

  // Takes out a slice that is clean and that nobody holds; null where a look at some found none.
  Slice* take_victim() {
    const bool probation_first = probation_count_ > slices_max_ / 4 || protected_count_ == 0;
    Slice* victim = probation_first ? take_probation() : take_protected();
    if (!victim) victim = probation_first ? take_protected() : take_probation();
    return victim;
  }

 private:
  static constexpr int kTries = 64;

  static bool may_leave(const Slice& slice) { return !slice.dirty && slice.holds == 0; }

  Slice* take_probation() {
    for (int tries = 0; tries < kTries && !probation_.empty(); ++tries) {
      Slice& slice = probation_.pop_front();
      if (may_leave(slice)) {
        --probation_count_;
        remember(slice.number);
        return &slice;
      }
      probation_.push_back(slice);
    }
    return nullptr;
  }

  Slice* take_protected() {
    for (int tries = 0; tries < kTries && !protected_.empty(); ++tries) {
      Slice& slice = protected_.pop_front();
      bool was_used = slice.used.exchange(false, std::memory_order_relaxed);
      if (!was_used && may_leave(slice)) {
        --protected_count_;
        return &slice;
      }
      protected_.push_back(slice);
    }
    return nullptr;
  }

  // Numbers of as many slices as fit in memory, the newest.
  void remember(uint64_t number) {
    if (!remembered_.insert(number).second) return;
    order_.push_back(number);
    if (order_.size() <= slices_max_) return;
    remembered_.erase(order_.front());
    order_.pop_front();
  }

  const uint64_t slices_max_;
  IntrusiveList<Slice> probation_;
  IntrusiveList<Slice> protected_;
  uint64_t probation_count_ = 0;
  uint64_t protected_count_ = 0;
  std::unordered_set<uint64_t> remembered_;
  std::deque<uint64_t> order_;
};

}  // namespace ringdisk::qcow2
