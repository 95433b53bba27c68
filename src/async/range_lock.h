// SPDX-License-Identifier: Apache-2.0
// RangeLock: exclusive locks on stretches of numbers [begin, end): clusters, blocks. Overlapping
// requests are granted in the order in which they came, so none starves; disjoint ones pass each
// other. One shard only.
//
//   RangeGuard guard(lock, begin, end);     // takes its place in the queue
//   co_await guard.acquired();              // held from here until the end of the block
//
// Cost: a walk over the held and waiting ranges, which are as many as requests in flight on one
// shard (tens).
#pragma once

#include <cstdint>

#include "async/waiter.h"
#include "base/check.h"

namespace ringdisk {

class RangeLock;

// A held or waiting range, in the lock's list in order of arrival.
class RangeEntry : public ListLink {
 public:
  RangeEntry(uint64_t begin, uint64_t end) : begin_(begin), end_(end) { CHECK_LT(begin, end); }
  bool overlaps(const RangeEntry& other) const {
    return begin_ < other.end_ && other.begin_ < end_;
  }

 private:
  friend class RangeLock;
  friend class RangeGuard;
  uint64_t begin_;
  uint64_t end_;
  Waiter* waiter_ = nullptr;  // null once granted
};

// Holds a range for as long as it lives. It does not move.
class [[nodiscard]] RangeGuard {
 public:
  RangeGuard(RangeLock& lock, uint64_t begin, uint64_t end);
  RangeGuard(const RangeGuard&) = delete;
  RangeGuard& operator=(const RangeGuard&) = delete;
  ~RangeGuard();

  // Waits until every overlapping range that came before is gone. Awaited once, before anything
  // else.
  class Wait final : public Waiter {
   public:
    explicit Wait(RangeGuard& guard) : guard_(guard) {}
    bool await_ready() const;
    template <RingdiskPromise P>
    void await_suspend(std::coroutine_handle<P> waiting) {
      suspend(waiting);
      guard_.entry_.waiter_ = this;
    }
    void await_resume() const {}

   private:
    RangeGuard& guard_;
  };
  Wait acquired() { return Wait(*this); }

 private:
  friend class RangeLock;
  RangeLock& lock_;
  RangeEntry entry_;
};

class RangeLock {
 public:
  bool is_idle() const { return entries_.empty(); }

 private:
  friend class RangeGuard;
  // Whether no range that came before `entry` overlaps it.
  bool is_first(const RangeEntry& entry);
  void wake_granted();

  mutable IntrusiveList<RangeEntry> entries_;
};

}  // namespace ringdisk
