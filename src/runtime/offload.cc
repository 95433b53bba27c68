// SPDX-License-Identifier: Apache-2.0
// Rings, pumps and helpers. A ring has one that pushes (its shard) and many that pop:
//
//   head_ ──> [ j4 ][ j5 ][ j6 ][    ] <── tail_      popping moves head_ on by compare-and-swap;
//                                                      the slot was read before, and cannot have
//   been written again meanwhile unless head_ had moved, and then the swap fails. Both only grow.
#include "runtime/offload.h"

#include "base/check.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk {

class Offload::Ring {
 public:
  // The owner only. False: full.
  bool push(OffloadJob& job) {
    const uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_.load(std::memory_order_acquire) == kSlots) return false;
    slots_[tail % kSlots].store(&job, std::memory_order_relaxed);
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }
  // Any thread. Null: empty.
  OffloadJob* pop() {
    uint64_t head = head_.load(std::memory_order_acquire);
    while (head < tail_.load(std::memory_order_acquire)) {
      OffloadJob* job = slots_[head % kSlots].load(std::memory_order_relaxed);
      if (head_.compare_exchange_weak(head, head + 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
        return job;
      }
    }
    return nullptr;
  }
  // Any thread; may be out of date.
  uint64_t size() const {
    const uint64_t head = head_.load(std::memory_order_acquire);
    const uint64_t tail = tail_.load(std::memory_order_acquire);
    return tail > head ? tail - head : 0;
  }

 private:
  static constexpr uint64_t kSlots = 256;

  std::array<std::atomic<OffloadJob*>, kSlots> slots_ = {};
  alignas(64) std::atomic<uint64_t> head_{0};
  alignas(64) std::atomic<uint64_t> tail_{0};
};

// The jobs of one shard, and its own way of getting at them: a message to itself.
class Offload::Lane final : public Message {
 public:
  explicit Lane(Shard& shard) : shard_(shard) {}

  // This shard only. False: the ring is full.
  bool push(OffloadJob& job, uint64_t cost_ns) {
    if (!ring_.push(job)) return false;
    waiting_ns_.fetch_add(static_cast<int64_t>(cost_ns), std::memory_order_relaxed);
    if (!is_posted_) shard_.post(*this);
    is_posted_ = true;
    return true;
  }
  // Any thread.
  OffloadJob* take(uint64_t& cost_ns) {
    OffloadJob* job = ring_.pop();
    if (!job) return nullptr;
    cost_ns = job->cost_ns_;
    waiting_ns_.fetch_sub(static_cast<int64_t>(cost_ns), std::memory_order_relaxed);
    return job;
  }
  uint64_t waiting() const { return ring_.size(); }
  // This shard only.
  bool is_posted() const { return is_posted_; }
  // For a moment below zero when a job is taken before it was counted.
  int64_t waiting_ns() const { return waiting_ns_.load(std::memory_order_relaxed); }
  const Shard& shard() const { return shard_; }

 private:
  // A slice of this shard's own jobs; the rest in the next turn.
  void deliver() override {
    uint64_t spent_ns = 0;
    while (spent_ns < kOffloadSliceNs) {
      uint64_t cost_ns = 0;
      OffloadJob* job = take(cost_ns);
      if (!job) {
        is_posted_ = false;
        return;
      }
      job->compute();
      job->deliver();
      spent_ns += cost_ns;
    }
    shard_.post(*this);
  }

  Shard& shard_;
  bool is_posted_ = false;  // this shard only
  std::atomic<int64_t> waiting_ns_{0};
  Ring ring_;
};

// One shard's visits to the rings of others: the invitation is a message to it.
class Offload::Helper final : public Message {
 public:
  Helper(Offload& offload, Shard& shard) : offload_(offload), shard_(shard) {}

  // Any thread. False: it is there already.
  bool invite() {
    if (is_invited_.exchange(true, std::memory_order_acq_rel)) return false;
    offload_.helping_.fetch_add(1, std::memory_order_relaxed);
    shard_.post(*this);
    return true;
  }
  bool is_invited() const { return is_invited_.load(std::memory_order_acquire); }
  bool is_idle() const { return shard_.is_asleep() || shard_.load() == 0; }
  bool is_asleep() const { return shard_.is_asleep(); }

 private:
  // Until there is nothing left, or this shard has work of its own; a slice a turn.
  void deliver() override {
    uint64_t spent_ns = 0;
    while (spent_ns < kOffloadSliceNs) {
      uint64_t cost_ns = 0;
      if (shard_.executor().has_ready() || !offload_.help_once(shard_.index(), cost_ns)) {
        offload_.helping_.fetch_sub(1, std::memory_order_relaxed);
        is_invited_.store(false, std::memory_order_release);
        return;
      }
      spent_ns += cost_ns;
    }
    shard_.post(*this);
  }

  Offload& offload_;
  Shard& shard_;
  std::atomic<bool> is_invited_{false};
};

void OffloadJob::deliver() {
  OffloadGroup& group = *group_;
  if (--group.left_ == 0) group.waiter_.wake();
}

void OffloadGroup::add(OffloadJob& job, uint64_t cost_ns) {
  CHECK_LT(count_, kJobsMax);
  job.group_ = this;
  job.cost_ns_ = cost_ns;
  jobs_[count_++] = &job;
}

Offload::Offload(std::span<Shard* const> shards) : shards_(shards) {
  for (size_t i = 0; i < shards.size(); ++i) {
    CHECK_EQ(uint64_t{shards[i]->index()}, uint64_t{i});
    lanes_.push_back(std::make_unique<Lane>(*shards[i]));
    helpers_.push_back(std::make_unique<Helper>(*this, *shards[i]));
  }
}

Offload::~Offload() {
  for (const std::unique_ptr<Helper>& helper : helpers_) CHECK(!helper->is_invited());
  for (const std::unique_ptr<Lane>& lane : lanes_) CHECK_EQ(lane->waiting(), uint64_t{0});
}

// False: all of it is done already. The caller's jobs are counted before the first can be finished,
// and none is heard of before this shard's next turn.
bool Offload::submit(OffloadGroup& group) {
  CHECK_GT(group.count_, size_t{0});
  Shard& home = Shard::current();
  Lane& lane = *lanes_[home.index()];
  group.home_ = &home;
  group.left_ = group.count_;
  for (size_t i = 0; i < group.count_; ++i) {
    OffloadJob& job = *group.jobs_[i];
    if (lane.push(job, job.cost_ns_)) continue;
    job.compute();
    --group.left_;
  }
  if (group.left_ == 0) return false;
  invite_if_it_pays(lane);
  return true;
}

// What waits is shared by this shard and those that help already; one more must be worth it. A
// sleeping shard costs more to get than one that is awake. A single job is done by the time that
// anybody comes.
void Offload::invite_if_it_pays(const Lane& lane) {
  const int64_t waiting_ns = lane.waiting_ns();
  const uint32_t helping = helping_.load(std::memory_order_relaxed);
  if (waiting_ns <= 0 || lane.waiting() < 2 || helping + 1 >= helpers_.size()) return;
  const uint64_t share_ns = static_cast<uint64_t>(waiting_ns) / (helping + 2);
  if (share_ns < kHandOverWorth * kHandOverNs) return;
  const size_t count = helpers_.size();
  for (size_t i = 1; i < count; ++i) {
    Helper& helper = *helpers_[(lane.shard().index() + i) % count];
    if (helper.is_invited() || !helper.is_idle()) continue;
    if (helper.is_asleep() && share_ns < kWakeUpWorth * kWakeUpNs) continue;
    if (helper.invite()) return;
  }
}

// One job of another shard's, begun with the helper's neighbour, so that helpers spread.
bool Offload::help_once(uint32_t helper, uint64_t& cost_ns) {
  const size_t count = lanes_.size();
  for (size_t i = 1; i < count; ++i) {
    Lane& lane = *lanes_[(helper + i) % count];
    OffloadJob* job = lane.take(cost_ns);
    if (!job) continue;
    job->compute();
    helped_.fetch_add(1, std::memory_order_relaxed);
    job->group_->home_->post(*job);
    return true;
  }
  return false;
}

// A helper that was invited, and a shard that posted itself a look at its ring, find no job and
// post themselves no more; both are at it on their own shard, so that is where to wait for it.
Task<void> Offload::settle(size_t index) {
  while (lanes_[index]->is_posted() || helpers_[index]->is_invited()) {
    co_await NextTurn(*shards_[index]);
  }
}

Task<void> Offload::stop() {
  for (size_t i = 0; i < shards_.size(); ++i) {
    auto there = [this, i] { return settle(i); };
    co_await shards_[i]->call(there);
  }
}

}  // namespace ringdisk
