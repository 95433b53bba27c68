// SPDX-License-Identifier: Apache-2.0
// The turn of a shard, and how it goes to sleep without missing a message:
//
//   shard:  asleep_ = true ──> inbox empty? ──> loop.poll(sleep)
//   sender: inbox.push(m) ──> asleep_? then loop.wake()
//
// Both sides are sequentially consistent, so either the shard sees m or the sender sees asleep_.
#include "runtime/shard.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"

namespace ringdisk {
namespace {

// How long a shard looks for messages before it sleeps, at the most. A wake-up costs the sender and
// the woken about 20 us together (docs/decisions/0006), so looking longer than that burns more than
// it saves.
constexpr Duration kSpinLongest = std::chrono::microseconds(20);
constexpr Duration kSpinShortest = std::chrono::microseconds(1);

}  // namespace

Shard::Shard(uint32_t index, const Clock& clock, std::unique_ptr<Loop> loop)
    : index_(index), clock_(clock), executor_(this), loop_(std::move(loop)), buffers_(loop_.get()) {
  CHECK_LT(index, limits::kShardsMax);
}

Shard::~Shard() = default;

Shard& Shard::current() {
  Shard* shard = Executor::current().shard();
  CHECK(shard != nullptr);
  return *shard;
}

void Shard::post(Message& message) {
  inbox_.push(message);
  if (asleep_.load(std::memory_order_seq_cst)) loop_->wake();
}

std::optional<Duration> Shard::sleep_limit() const {
  std::optional<Instant> next = timers_.next();
  if (!next) return std::nullopt;
  return std::max(*next - clock_.now(), Duration::zero());
}

void Shard::turn(bool may_sleep, uint32_t resumed_max) {
  Executor::Entered entered(executor_);
  inbox_.deliver_all();
  uint32_t resumed = executor_.run_ready(resumed_max);
  load_.store(resumed, std::memory_order_relaxed);
  if (timers_.next()) timers_.fire(clock_.now());
  if (!may_sleep || std::exchange(stays_awake_, false) || has_work()) {
    loop_->poll(Duration::zero());
  } else if (!spin_for_message()) {
    sleep_until_event();  // submits and waits in one system call
  }
}

// Adapts: whatever comes while spinning, or soon after falling asleep, doubles the time to spin
// next; a longer sleep halves it. So an idle shard soon spins no more, and one in a lively exchange
// does not pay for sleeping.
bool Shard::spin_for_message() {
  if (spin_max_ < kSpinShortest) return false;
  Instant start = clock_.now();
  while (clock_.now() - start < spin_max_) {
    if (!inbox_.is_empty() || loop_->poll(Duration::zero()) != 0) {
      spin_max_ = std::min(spin_max_ * 2, kSpinLongest);
      return true;
    }
    __builtin_ia32_pause();
  }
  return false;
}

void Shard::sleep_until_event() {
  asleep_.store(true, std::memory_order_seq_cst);
  Instant start = clock_.now();
  if (inbox_.is_empty()) loop_->poll(sleep_limit());
  asleep_.store(false, std::memory_order_relaxed);
  // Woken soon after falling asleep: spinning would have caught what came.
  if (clock_.now() - start < 2 * kSpinLongest) {
    spin_max_ = std::clamp(spin_max_ * 2, kSpinShortest, kSpinLongest);
  } else {
    spin_max_ /= 2;
  }
}

}  // namespace ringdisk
