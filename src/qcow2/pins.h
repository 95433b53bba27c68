// SPDX-License-Identifier: Apache-2.0
// Pins: who is using host clusters right now, over all shards, without a lock
// (docs/decisions/0003-life-of-a-mapping.md). One word a shard, written by that shard alone:
//
//   | 63 reading | 55..28 pins of generation 1 | 27..0 pins of generation 0 |
//
//   lookup on a shard:  word += reading + one pin of the current generation (one sequentially
//                       consistent store); load slice pointer and entry; word -= reading (and the
//                       pin, unless the mapping is data whose bytes will move)
//   release:            word -= the pin
//   home shard:         publish a new entry (sequentially consistent store), then drain():
//                       afterwards nobody uses what a lookup found before
//
// Why it is right (Dekker): the lookup stores its pin and then loads the entry; the home shard
// stores the entry and then loads the pins. In the one order of sequentially consistent operations
// either the lookup sees the new entry, or the home shard sees the pin. A drain waits for two
// generations in turn (drain_cycle), so that new pins, which go to the other one, cannot starve it.
// "reading" keeps slice memory alive for the length of a lookup, which never suspends; so a hung
// read delays the reuse of clusters, never that of memory. A sleeping shard is not reading. Cost:
// docs/decisions/0003 has the measurements; two locked stores a pin, no shared line but for the
// generation.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "async/event.h"
#include "async/mutex.h"
#include "async/task.h"
#include "runtime/message.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {

class Pins {
 public:
  explicit Pins(size_t shard_count);
  Pins(const Pins&) = delete;
  Pins& operator=(const Pins&) = delete;
  ~Pins();

  // --- any shard, for itself: `shard` is the calling shard's index

  // Starts a lookup; gives the generation of the pin that it takes.
  uint32_t begin_lookup(uint32_t shard) {
    ShardWord& own = words_[shard];
    uint32_t generation = generation_.load(std::memory_order_relaxed) & 1;
    own.value += kReading + one_pin(generation);
    own.word.store(own.value, std::memory_order_seq_cst);
    return generation;
  }
  // Ends it, keeping the pin …
  void end_lookup_pinned(uint32_t shard) {
    ShardWord& own = words_[shard];
    own.value -= kReading;
    own.word.store(own.value, std::memory_order_release);
  }
  // … or without it.
  void end_lookup(uint32_t shard, uint32_t generation) {
    words_[shard].value -= kReading;
    release(shard, generation);
  }
  void release(uint32_t shard, uint32_t generation) {
    ShardWord& own = words_[shard];
    CHECK((own.value & (one_pin(generation) * kPinMask)) != 0);
    own.value -= one_pin(generation);
    own.word.store(own.value, std::memory_order_seq_cst);
    if (drain_waits_.load(std::memory_order_seq_cst)) [[unlikely]]
      notify(shard);
  }

  // --- home shard

  // `home` is the shard that drains. Once, before the first drain.
  void set_home(Shard& home) { home_.store(&home, std::memory_order_release); }
  // Afterwards every pin that was taken before this was called is gone. Calls that come while a
  // drain runs share the next.
  Task<void> drain();
  // Waits for notices of other shards that are still on their way. After the last release, before
  // destruction.
  Task<void> close();

  // --- home shard: memory that lookups may still be reading

  // What all shards are doing now. Memory that nobody can reach any more may be freed once
  // is_past(mark).
  class Mark {
   private:
    friend class Pins;
    std::vector<std::pair<uint32_t, uint64_t>> reading_;  // shard, its word
  };
  Mark mark() const;
  // Whether every lookup that ran when the mark was made is over. Forgets those that are.
  bool is_past(Mark& mark) const;

  // For tests: pins held, over all shards.
  uint64_t held() const;

 private:
  static constexpr uint64_t kReading = uint64_t{1} << 63;
  static constexpr uint32_t kGenerationBits = 28;
  static constexpr uint64_t kPinMask = (uint64_t{1} << kGenerationBits) - 1;

  class Notice final : public Message {
   public:
    void deliver() override;
    Pins* pins = nullptr;
    std::atomic<bool> posted{false};
  };
  // One cache line a shard; two, since processors fetch lines in pairs.
  struct alignas(128) ShardWord {
    std::atomic<uint64_t> word{0};
    uint64_t value = 0;  // that shard only: what `word` holds
    Notice notice;
  };

  static constexpr uint64_t one_pin(uint32_t generation) {
    return uint64_t{1} << (generation * kGenerationBits);
  }
  bool has_pins(uint32_t generation) const;
  Task<void> wait_until_free(uint32_t generation);
  Task<void> drain_cycle();
  void notify(uint32_t shard);

  // any thread
  std::vector<ShardWord> words_;
  alignas(128) std::atomic<uint32_t> generation_{0};
  std::atomic<bool> drain_waits_{false};
  std::atomic<Shard*> home_{nullptr};

  // home shard only
  Mutex draining_;
  Event changed_;
  uint64_t cycles_begun_ = 0;
  uint64_t cycles_done_ = 0;
};

}  // namespace ringdisk::qcow2
