// SPDX-License-Identifier: Apache-2.0
// BlockLock: keeps writes that touch the same blocks of a storage apart, across all shards, where
// the storage's block is larger than a byte. A write smaller than a block reads the block, changes
// a part and writes the whole: between the two nobody else may write that block. Every write to
// such a storage consults it; storages with block_size 1 never come here.
//
// A small mutex around a list of held ranges, never held across a suspension; who must wait is
// woken by a message to its shard. Cost: one uncontended mutex and a walk over the writes in
// flight.
#pragma once

#include <cstdint>
#include <mutex>

#include "async/waiter.h"
#include "base/intrusive.h"
#include "base/units.h"
#include "runtime/message.h"

namespace ringdisk {

class Shard;

class BlockLock;

// A held or waiting range; lives in the frame of the writer, on its shard.
class [[nodiscard]] BlockGuard final : public ListLink, public Message {
 public:
  // `blocks` is aligned to the storage's block size and not empty.
  BlockGuard(BlockLock& lock, HostRange blocks, Shard& shard);
  BlockGuard(const BlockGuard&) = delete;
  BlockGuard& operator=(const BlockGuard&) = delete;
  ~BlockGuard();

  class Wait {
   public:
    explicit Wait(BlockGuard& guard) : guard_(guard) {}
    bool await_ready() const noexcept { return false; }
    template <RingdiskPromise P>
    bool await_suspend(std::coroutine_handle<P> waiting) {
      guard_.waiter_.suspend(waiting);
      return guard_.enqueue();
    }
    void await_resume() const {}

   private:
    BlockGuard& guard_;
  };
  // Awaited once, before the blocks are touched.
  Wait acquired() { return Wait(*this); }

 private:
  friend class BlockLock;
  bool enqueue();  // true: must wait
  void deliver() override { waiter_.wake(); }

  BlockLock& lock_;
  const HostRange blocks_;
  Shard& shard_;
  Waiter waiter_;
  bool queued_ = false;   // under the lock's mutex
  bool granted_ = false;  // likewise
};

class BlockLock {
 private:
  friend class BlockGuard;
  bool is_first(const BlockGuard& guard);
  std::mutex mutex_;
  IntrusiveList<BlockGuard> guards_;  // in order of arrival
};

}  // namespace ringdisk
