// SPDX-License-Identifier: Apache-2.0
// The ready queue and the trampoline's outer loop.
#include "async/executor.h"

#include <utility>

#include "async/promise.h"
#include "base/check.h"

namespace ringdisk {
namespace {

constinit thread_local Executor* current_executor = nullptr;

constexpr size_t kRingSizeFirst = 256;

}  // namespace

Executor& Executor::current() {
  CHECK(current_executor != nullptr);
  return *current_executor;
}

bool Executor::has_current() { return current_executor != nullptr; }

Executor::Entered::Entered(Executor& executor)
    : previous_(std::exchange(current_executor, &executor)) {}

Executor::Entered::~Entered() { current_executor = previous_; }

void Executor::grow() {
  std::vector<PromiseBase*> larger(ring_.empty() ? kRingSizeFirst : ring_.size() * 2);
  for (size_t i = 0; i < count_; ++i) larger[i] = ring_[(first_ + i) & (ring_.size() - 1)];
  ring_ = std::move(larger);
  first_ = 0;
}

void Executor::make_ready(PromiseBase& coroutine) {
  if (count_ == ring_.size()) grow();
  ring_[(first_ + count_++) & (ring_.size() - 1)] = &coroutine;
}

PromiseBase& Executor::take_ready() {
  if (shuffled_) {
    size_t drawn = (first_ + random_.below(count_)) & (ring_.size() - 1);
    std::swap(ring_[first_], ring_[drawn]);
  }
  PromiseBase* coroutine = ring_[first_];
  first_ = (first_ + 1) & (ring_.size() - 1);
  --count_;
  return *coroutine;
}

uint32_t Executor::run_ready(uint32_t count_max) {
  Entered entered(*this);
  uint32_t done = 0;
  for (; done < count_max && count_ != 0; ++done) PromiseBase::resume(take_ready());
  return done;
}

void Executor::shuffle(uint64_t seed) {
  random_ = Random(seed);
  shuffled_ = true;
}

}  // namespace ringdisk
