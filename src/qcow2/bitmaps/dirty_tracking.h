// SPDX-License-Identifier: Apache-2.0
// DirtyTracking: which of an image's persistent bitmaps record what is written, for all shards.
//
//   off      no bitmap is enabled: all that a write pays is the branch of is_off()
//   armed    some are, and the image does not say yet that they are in use: no write goes in place
//   on       it says so, durably: whoever changes the disk marks the range first
//
// A range is marked before its bytes change, so that a bitmap may say too much (a write that
// failed) and never too little. What is marked here reaches the disk when the image is closed
// (bitmap_keeper.h).
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "block/dirty_bits.h"

namespace ringdisk::qcow2 {

class DirtyTracking {
 public:
  // --- any shard
  bool is_off() const { return state_.load(std::memory_order_relaxed) == State::kOff; }
  bool is_armed() const { return state_.load(std::memory_order_acquire) == State::kArmed; }
  // Only where !is_armed().
  void mark(GuestRange range) const {
    if (is_off()) return;
    for (const std::shared_ptr<DirtyBits>& bits : enabled_) bits->mark(range);
  }

  // --- home shard
  // Before other shards have queues.
  void arm() { state_.store(State::kArmed, std::memory_order_release); }
  // Once; `enabled` outlive all queues.
  void start(std::vector<std::shared_ptr<DirtyBits>> enabled) {
    enabled_ = std::move(enabled);
    state_.store(State::kOn, std::memory_order_release);
  }

 private:
  enum class State : uint8_t { kOff, kArmed, kOn };

  std::atomic<State> state_{State::kOff};
  std::vector<std::shared_ptr<DirtyBits>> enabled_;  // constant from start() on
};

}  // namespace ringdisk::qcow2
