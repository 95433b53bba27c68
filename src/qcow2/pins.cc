// SPDX-License-Identifier: Apache-2.0
// Draining. A cycle, with the generation g counting and 1 - g old:
//
//   wait until generation 1 - g is free   (only lookups that read the number before the last flip
//   still take it) flip: new pins go to 1 - g wait until generation g is free
//
// A pin taken before the drain is in one of the two and is waited for. Nobody waits for ever: after
// the flip only a lookup that read the old number an instant before adds to g.
#include "qcow2/pins.h"

namespace ringdisk::qcow2 {

Pins::Pins(size_t shard_count) : words_(shard_count) {
  for (ShardWord& word : words_) word.notice.pins = this;
}

Pins::~Pins() {
  for (const ShardWord& word : words_) {
    CHECK_EQ(word.word.load(std::memory_order_relaxed), uint64_t{0});
    CHECK(!word.notice.posted.load(std::memory_order_relaxed));
  }
}

bool Pins::has_pins(uint32_t generation) const {
  for (const ShardWord& word : words_) {
    uint64_t value = word.word.load(std::memory_order_seq_cst);
    if ((value & (one_pin(generation) * kPinMask)) != 0) return true;
  }
  return false;
}

uint64_t Pins::held() const {
  uint64_t sum = 0;
  for (const ShardWord& word : words_) {
    uint64_t value = word.word.load(std::memory_order_relaxed);
    sum += (value & kPinMask) + ((value >> kGenerationBits) & kPinMask);
  }
  return sum;
}

// The releasing shard stores its word and then looks whether a drain waits; the draining one says
// that it waits and then looks at the words. So none of them misses the other.
Task<void> Pins::wait_until_free(uint32_t generation) {
  drain_waits_.store(true, std::memory_order_seq_cst);
  for (;;) {
    changed_.reset();
    if (!has_pins(generation)) break;
    co_await changed_.wait();
  }
  drain_waits_.store(false, std::memory_order_relaxed);
}

Task<void> Pins::drain_cycle() {
  uint32_t current = generation_.load(std::memory_order_relaxed);
  co_await wait_until_free((current + 1) & 1);
  generation_.store(current + 1, std::memory_order_seq_cst);
  co_await wait_until_free(current & 1);
}

Task<void> Pins::drain() {
  const uint64_t needed = cycles_begun_ + 1;  // a cycle that begins from now on
  MutexLock lock = co_await draining_.lock();
  if (cycles_done_ >= needed) co_return;
  ++cycles_begun_;
  co_await drain_cycle();
  cycles_done_ = cycles_begun_;
}

Task<void> Pins::close() {
  for (ShardWord& word : words_) {
    while (word.notice.posted.load(std::memory_order_acquire)) {
      changed_.reset();
      co_await changed_.wait();
    }
  }
}

void Pins::notify(uint32_t shard) {
  Notice& notice = words_[shard].notice;
  if (notice.posted.exchange(true, std::memory_order_acq_rel)) return;
  home_.load(std::memory_order_acquire)->post(notice);
}

// `posted` first: a release that comes now posts again, and one that came before has stored its
// word already.
void Pins::Notice::deliver() {
  posted.store(false, std::memory_order_seq_cst);
  pins->changed_.set();
}

Pins::Mark Pins::mark() const {
  Mark mark;
  for (uint32_t shard = 0; shard < words_.size(); ++shard) {
    uint64_t value = words_[shard].word.load(std::memory_order_seq_cst);
    if ((value & kReading) != 0) mark.reading_.emplace_back(shard, value);
  }
  return mark;
}

// Within a lookup the word does not change, so another value means that the marked lookup is over.
// The same value may by chance belong to a later lookup; then we wait a little longer than we must.
bool Pins::is_past(Mark& mark) const {
  std::erase_if(mark.reading_, [this](const std::pair<uint32_t, uint64_t>& seen) {
    return words_[seen.first].word.load(std::memory_order_seq_cst) != seen.second;
  });
  return mark.reading_.empty();
}

}  // namespace ringdisk::qcow2
