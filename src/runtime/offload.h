// SPDX-License-Identifier: Apache-2.0
// Offload: lets idle shards take part in another shard's computation (ciphers, checksums), so that
// one queue, one connection or one large request can use every core. Nothing is handed over that
// would not pay; who has nothing else to do comes and takes.
//
//   shard A                                       shard B, idle
//   co_await offload.run(group) ── push ──> [ j j j j j ] <── pop ── helper, invited once
//   pump: pops its own, a slice a turn ─────^                        posts each job home when done
//
// A job waits in a ring of the shard that made it. The shard itself takes jobs out of it between
// its other work (a slice of 50 us a turn), so every job gets done whoever else comes. When what
// waits is worth several times what waking or calling another shard costs, one that is idle is
// invited; it takes job by job until there is none or it has work of its own. So a helper is never
// waited for, but for the one job it is at. Jobs in a ring, invitations, completions: no lock, and
// no memory but the frame of who waits.
//
// One Offload a node that computes; constant span of shards. run() is called on any of them.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "async/task.h"
#include "async/waiter.h"
#include "runtime/message.h"

namespace ringdisk {

class Shard;

// What crossing shards costs (docs/decisions/0006): between shards that are awake, and to wake one.
inline constexpr uint64_t kHandOverNs = 500;
inline constexpr uint64_t kWakeUpNs = 20'000;
// What a shard is invited for is worth so many times the invitation: if it is awake, if it sleeps.
inline constexpr uint64_t kHandOverWorth = 8;
inline constexpr uint64_t kWakeUpWorth = 4;
// Computation of less than this is done where it arises: 128 KiB of AES-256-XTS by the widest
// kernel, 3 KiB by OpenSSL without AES instructions. Handing over 5 us of work was measured to cost
// a tenth of it (docs/decisions/0018).
inline constexpr uint64_t kInPlaceNsMax = 20 * kHandOverNs;
// What a shard computes in one go before it looks at its other work; what large work is cut into.
inline constexpr uint64_t kOffloadSliceNs = 50'000;

class OffloadGroup;

// A piece of pure computation. Lives with its group in the frame of who waits for it.
class OffloadJob : public Message {
 public:
  // On any shard's thread; touches nothing that belongs to a shard.
  virtual void compute() = 0;

 protected:
  OffloadJob() = default;
  ~OffloadJob() = default;

 private:
  friend class Offload;
  friend class OffloadGroup;
  void deliver() final;

  OffloadGroup* group_ = nullptr;
  uint64_t cost_ns_ = 0;
};

// Jobs that are waited for together.
class OffloadGroup {
 public:
  // `cost_ns` is what the job is expected to take; added before run().
  void add(OffloadJob& job, uint64_t cost_ns);

 private:
  friend class Offload;
  friend class OffloadJob;
  static constexpr size_t kJobsMax = 16;

  std::array<OffloadJob*, kJobsMax> jobs_ = {};
  size_t count_ = 0;
  size_t left_ = 0;  // this shard only
  Shard* home_ = nullptr;
  Waiter waiter_;

 public:
  static constexpr size_t capacity() { return kJobsMax; }
};

class Offload {
 public:
  // The shards outlive it.
  explicit Offload(std::span<Shard* const> shards);
  Offload(const Offload&) = delete;
  Offload& operator=(const Offload&) = delete;
  ~Offload();

  class Wait {
   public:
    Wait(Offload& offload, OffloadGroup& group) : offload_(offload), group_(group) {}
    bool await_ready() const noexcept { return false; }
    template <RingdiskPromise P>
    bool await_suspend(std::coroutine_handle<P> waiting) {
      group_.waiter_.suspend(waiting);
      return offload_.submit(group_);
    }
    void await_resume() const noexcept {}

   private:
    Offload& offload_;
    OffloadGroup& group_;
  };
  // Computes all jobs of the group, here or elsewhere. Not empty; its jobs' memory stays the
  // caller's until this is done.
  Wait run(OffloadGroup& group) { return Wait(*this, group); }

  // Waits until no shard looks into the rings any more. Once, when nothing is run any more, before
  // the destructor.
  Task<void> stop();

  // How many jobs were computed on another shard than theirs. Any thread; a hint.
  uint64_t helped() const { return helped_.load(std::memory_order_relaxed); }

 private:
  class Ring;
  class Lane;
  class Helper;

  bool submit(OffloadGroup& group);
  void invite_if_it_pays(const Lane& lane);
  bool help_once(uint32_t helper, uint64_t& cost_ns);
  Task<void> settle(size_t index);

  // constant after construction
  const std::span<Shard* const> shards_;
  std::vector<std::unique_ptr<Lane>> lanes_;      // one a shard
  std::vector<std::unique_ptr<Helper>> helpers_;  // one a shard

  // any thread (atomic)
  std::atomic<uint32_t> helping_{0};
  std::atomic<uint64_t> helped_{0};
};

}  // namespace ringdisk
