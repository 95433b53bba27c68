// SPDX-License-Identifier: Apache-2.0
// The heap: the parent of i is (i - 1) / 2, its children are 2i + 1 and 2i + 2.
#include "runtime/timer.h"

#include "base/check.h"

namespace ringdisk {

void TimerQueue::place(size_t at, Sleep& sleeper) {
  heap_[at] = &sleeper;
  sleeper.position_ = at;
}

void TimerQueue::sift_up(size_t at) {
  Sleep& moving = *heap_[at];
  for (; at != 0 && moving.until_ < heap_[(at - 1) / 2]->until_; at = (at - 1) / 2) {
    place(at, *heap_[(at - 1) / 2]);
  }
  place(at, moving);
}

void TimerQueue::sift_down(size_t at) {
  Sleep& moving = *heap_[at];
  for (size_t child = 2 * at + 1; child < heap_.size(); child = 2 * at + 1) {
    if (child + 1 < heap_.size() && heap_[child + 1]->until_ < heap_[child]->until_) ++child;
    if (!(heap_[child]->until_ < moving.until_)) break;
    place(at, *heap_[child]);
    at = child;
  }
  place(at, moving);
}

void TimerQueue::add(Sleep& sleeper) {
  heap_.push_back(&sleeper);
  place(heap_.size() - 1, sleeper);
  sift_up(heap_.size() - 1);
}

void TimerQueue::remove(Sleep& sleeper) {
  size_t at = sleeper.position_;
  CHECK_LT(at, heap_.size());
  sleeper.position_ = Sleep::kNotQueued;
  Sleep& last = *heap_.back();
  heap_.pop_back();
  if (&last == &sleeper) return;
  place(at, last);
  sift_up(at);
  sift_down(last.position_);
}

uint32_t TimerQueue::fire(Instant now) {
  uint32_t fired = 0;
  for (; !heap_.empty() && heap_[0]->until_ <= now; ++fired) {
    Sleep& due = *heap_[0];
    remove(due);
    due.wake();
  }
  return fired;
}

std::optional<Instant> TimerQueue::next() const {
  if (heap_.empty()) return std::nullopt;
  return heap_[0]->until_;
}

}  // namespace ringdisk
