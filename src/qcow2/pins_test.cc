// SPDX-License-Identifier: Apache-2.0
// The life of a mapping in miniature: a few guest entries and host slots, lookups and writes in
// place on every shard, and a home shard that discards, moves and shares meanwhile. On the
// simulator with thousands of seeds, and on real threads, where the slots are plain memory, so that
// the thread sanitizer sees every use of a slot that a pin should have prevented.
#include "qcow2/pins.h"

#include <gtest/gtest.h>

#include <array>

#include "base/diagnostics.h"
#include "qcow2/layout/l2_entry.h"
#include "runtime/next_turn.h"
#include "runtime/runtime.h"
#include "sim/seeds.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kEntries = 12;
constexpr uint64_t kSlots = 2 * kEntries;
constexpr uint64_t kNobody = ~uint64_t{0};

// Entries 0, 4, 8, … are discarded and allocated again; the others are written and moved.
bool is_discarded_kind(uint64_t entry) { return entry % 4 == 0; }

class Miniature {
 public:
  Miniature(std::span<Shard* const> shards, uint64_t seed, int rounds)
      : pins_(shards.size()), shards_(shards), seed_(seed), rounds_(rounds) {
    pins_.set_home(*shards[0]);
    // Numbered from 1: an offset of 0 means that there is none.
    for (uint64_t slot = kSlots; slot > 0; --slot) free_.push_back(slot);
    for (uint64_t entry = 0; entry < kEntries; ++entry) allocate(entry);
    box_.store(new_box(), std::memory_order_seq_cst);
  }

  Task<void> run(Shard& shard) {
    // Each shard reads and writes; the first is also the home.
    auto part = [this, &shard](size_t index) {
      Random random(sim::mix_seed(seed_, shard.index() * 16 + index));
      if (index < 2) return read_entries(shard, random);
      if (index < 4) return write_entries(shard, random, index - 2);
      return change_entries(shard, random, index - 4);
    };
    const size_t parts = shard.index() == 0 ? 7 : 4;
    co_await when_all(parts, part);
  }
  Task<void> finish() {
    EXPECT_EQ(pins_.held(), 0u);
    co_await pins_.close();
    for (uint64_t entry = 0; entry < kEntries; ++entry) {
      if (is_discarded_kind(entry)) continue;
      EXPECT_EQ(slots_[slot_of(entry)].value, written_[entry]) << "entry " << entry;
    }
  }
  uint64_t moves() const { return moves_; }

 private:
  // Plain memory: only pins and drains order its uses.
  struct Slot {
    uint64_t owner = kNobody;
    uint64_t value = 0;
  };
  struct Box {
    uint64_t canary = 42;
  };
  static constexpr uint64_t kShift = 9;  // where an entry's slot number stands

  Box* new_box() {
    boxes_.push_back(std::make_unique<Box>());
    return boxes_.back().get();
  }
  uint64_t slot_of(uint64_t entry) const {
    return (entries_[entry].load(std::memory_order_seq_cst) & kOffsetMask) >> kShift;
  }
  static Task<void> wait_for_io(Shard& shard, Random& random) {
    const uint64_t turns = random.below(4);
    for (uint64_t i = 0; i < turns; ++i) co_await NextTurn(shard);
  }

  Task<void> read_entries(Shard& shard, Random random) {
    for (int i = 0; i < rounds_; ++i) {
      const uint64_t entry = random.below(kEntries);
      const uint32_t generation = pins_.begin_lookup(shard.index());
      const L2Entry found(entries_[entry].load(std::memory_order_seq_cst), 0);
      // Memory that a lookup can reach is alive as long as it reads.
      EXPECT_EQ(box_.load(std::memory_order_seq_cst)->canary, 42u);
      if (!found.has_host()) {
        pins_.end_lookup(shard.index(), generation);
        co_await NextTurn(shard);
        continue;
      }
      pins_.end_lookup_pinned(shard.index());
      const Slot& slot = slots_[found.host().value() >> kShift];
      EXPECT_EQ(slot.owner, entry);
      co_await wait_for_io(shard, random);
      EXPECT_EQ(slot.owner, entry) << "a slot was used again under a pin";
      pins_.release(shard.index(), generation);
    }
  }

  // Each entry has one writer, so that lost writes can be counted.
  Task<void> write_entries(Shard& shard, Random random, uint64_t half) {
    for (int i = 0; i < rounds_; ++i) {
      const uint64_t entry = random.below(kEntries);
      const bool is_mine = entry % (2 * shards_.size()) == 2 * shard.index() + half;
      if (is_discarded_kind(entry) || !is_mine) continue;
      const uint32_t generation = pins_.begin_lookup(shard.index());
      const L2Entry found(entries_[entry].load(std::memory_order_seq_cst), 0);
      if (!found.is_writable_in_place()) {
        pins_.end_lookup(shard.index(), generation);
        co_await NextTurn(shard);
        continue;
      }
      pins_.end_lookup_pinned(shard.index());
      Slot& slot = slots_[found.host().value() >> kShift];
      const uint64_t before = slot.value;
      co_await wait_for_io(shard, random);
      slot.value = before + 1;
      ++written_[entry];
      pins_.release(shard.index(), generation);
    }
  }

  // --- home
  void allocate(uint64_t entry) {
    const uint64_t slot = free_.back();
    free_.pop_back();
    slots_[slot].owner = entry;
    store(entry, slot, kCopied);
  }
  void store(uint64_t entry, uint64_t slot, uint64_t flags) {
    entries_[entry].store(slot << kShift | flags, std::memory_order_seq_cst);
  }
  void free_slot(uint64_t slot) {
    slots_[slot] = Slot();
    free_.push_back(slot);
  }

  Task<void> change_entries(Shard& shard, Random random, uint64_t third) {
    for (int i = 0; i < rounds_ / 4; ++i) {
      const uint64_t entry = random.below(kEntries / 3) * 3 + third;
      if (is_discarded_kind(entry)) {
        co_await discard_and_allocate(shard, entry);
      } else {
        co_await move(entry);
      }
      replace_box();
      co_await wait_for_io(shard, random);
    }
  }

  Task<void> discard_and_allocate(Shard& shard, uint64_t entry) {
    const uint64_t slot = slot_of(entry);
    entries_[entry].store(0, std::memory_order_seq_cst);
    co_await pins_.drain();
    free_slot(slot);
    co_await NextTurn(shard);
    allocate(entry);
  }

  // Freeze, drain, copy: no write in place is under way while the copy is made, and none is lost.
  Task<void> move(uint64_t entry) {
    const uint64_t from = slot_of(entry);
    store(entry, from, kCopied | kFrozen);
    co_await pins_.drain();
    const uint64_t to = free_.back();
    free_.pop_back();
    slots_[to] = slots_[from];
    store(entry, to, kCopied);
    co_await pins_.drain();
    free_slot(from);
    ++moves_;
  }

  void replace_box() {
    Box* old = box_.exchange(new_box(), std::memory_order_seq_cst);
    retired_.emplace_back(old, pins_.mark());
    while (!retired_.empty() && pins_.is_past(retired_.front().second)) {
      Box* unused = retired_.front().first;
      unused->canary = 0;
      std::erase_if(boxes_, [unused](const auto& box) { return box.get() == unused; });
      retired_.erase(retired_.begin());
    }
  }

  Pins pins_;
  std::span<Shard* const> shards_;
  const uint64_t seed_;
  const int rounds_;
  std::array<std::atomic<uint64_t>, kEntries> entries_{};
  std::array<Slot, kSlots + 1> slots_{};
  std::array<uint64_t, kEntries> written_{};  // each by its one writer
  std::atomic<Box*> box_{nullptr};
  // home only
  std::vector<uint64_t> free_;
  std::vector<std::unique_ptr<Box>> boxes_;
  std::vector<std::pair<Box*, Pins::Mark>> retired_;
  uint64_t moves_ = 0;
};

TEST(PinsTest, NobodyUsesAClusterThatWasMovedOrFreed) {
  uint64_t moves = 0;
  sim::for_each_seed(3000, [&moves](uint64_t seed) {
    sim::SimWorld world(seed, 1 + seed % 4);
    Miniature miniature(world.world().shards, seed, 20);
    auto work = [&](Shard& shard) { return miniature.run(shard); };
    EXPECT_TRUE(world.run_on_all(work).ok());
    auto end = [&](Shard&) { return miniature.finish(); };
    EXPECT_TRUE(world.run(end).ok());
    moves += miniature.moves();
  });
  EXPECT_GT(moves, 0u);
}

Task<void> run_there(Shard& there, Miniature& miniature) {
  auto work = [&there, &miniature] { return miniature.run(there); };
  co_await there.call(work);
}

Task<void> run_everywhere(std::span<Shard* const> shards, Miniature& miniature) {
  auto one = [&](size_t index) { return run_there(*shards[index], miniature); };
  co_await when_all(shards.size(), one);
  co_await miniature.finish();
}

TEST(PinsTest, NobodyUsesAClusterThatWasMovedOrFreedOnRealThreads) {
  SystemClock clock;
  Log log(-1, LogLevel::kWarning, "");
  RuntimeOptions options;
  options.shards = 3;
  Runtime runtime(options, clock, log);
  ASSERT_TRUE(runtime.start().ok());
  Miniature miniature(runtime.shards(), sim::seed_or(1), 4000);
  auto root = [&](Shard&) { return run_everywhere(runtime.shards(), miniature); };
  EXPECT_TRUE(runtime.run(root).ok());
  EXPECT_GT(miniature.moves(), 100u);
}

TEST(PinsTest, ADrainEndsWhileNewPinsKeepComing) {
  sim::SimWorld world(sim::seed_or(1), 1);
  Pins pins(1);
  pins.set_home(world.shard(0));
  bool drained = false;
  auto keep_pinning = [&](Shard& shard) -> Task<void> {
    uint32_t held = pins.begin_lookup(0);
    pins.end_lookup_pinned(0);
    while (!drained) {
      const uint32_t next = pins.begin_lookup(0);
      pins.end_lookup_pinned(0);
      co_await NextTurn(shard);
      pins.release(0, held);
      held = next;
    }
    pins.release(0, held);
  };
  auto drain = [&](Shard&) -> Task<void> {
    co_await pins.drain();
    drained = true;
  };
  auto both = [&](Shard& shard) -> Task<void> {
    auto one = [&](size_t index) { return index == 0 ? keep_pinning(shard) : drain(shard); };
    co_await when_all(2, one);
    co_await pins.close();
  };
  EXPECT_TRUE(world.run(both).ok());
}

TEST(PinsTest, ADrainWaitsForAPinAndNotForMemory) {
  sim::SimWorld world(sim::seed_or(1), 1);
  Pins pins(1);
  pins.set_home(world.shard(0));
  const uint32_t held = pins.begin_lookup(0);
  Pins::Mark reading = pins.mark();
  EXPECT_FALSE(pins.is_past(reading));
  pins.end_lookup_pinned(0);
  EXPECT_TRUE(pins.is_past(reading));
  bool drained = false;
  auto drain = [&](Shard&) -> Task<void> {
    co_await pins.drain();
    drained = true;
  };
  auto release = [&](Shard& shard) -> Task<void> {
    Result<void> slept = co_await shard.sleep(std::chrono::hours(1));
    co_await std::move(slept);
    EXPECT_FALSE(drained);
    pins.release(0, held);
  };
  auto both = [&](Shard& shard) -> Task<void> {
    auto one = [&](size_t index) { return index == 0 ? drain(shard) : release(shard); };
    co_await when_all(2, one);
    co_await pins.close();
  };
  EXPECT_TRUE(world.run(both).ok());
  EXPECT_TRUE(drained);
}

}  // namespace
}  // namespace ringdisk::qcow2
