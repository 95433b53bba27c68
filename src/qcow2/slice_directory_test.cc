// SPDX-License-Identifier: Apache-2.0
// Extended entries of a slice: two words that are read beside their changes, on real threads.
#include "qcow2/slice_directory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>
#include <vector>

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kEntries = 4;
constexpr uint64_t kBitmapsPerWord = 4;
constexpr int kReaders = 3;
// Reads that found an entry changed, which takes a writer at the same moment on another processor.
constexpr uint64_t kChangesWanted = 20'000;
constexpr uint64_t kGenerationsMax = 2'000'000;

// Generation g of an entry: a first word, and bitmaps that tell the word they belong to.
L2Entry entry_of(uint64_t generation) {
  const uint64_t word = generation / kBitmapsPerWord;
  return L2Entry(word << 9 | kCopied, generation);
}
bool belong_together(L2Entry entry) {
  return (entry.raw() & kOffsetMask) >> 9 == entry.bitmap() / kBitmapsPerWord;
}

TEST(SliceTest, BothWordsOfAnEntryAreOfOneMoment) {
  Slice slice(0, kEntries, true);
  for (uint64_t i = 0; i < kEntries; ++i) slice.fill(i, entry_of(0));
  std::atomic<bool> is_over{false};
  std::array<std::atomic<uint64_t>, kReaders> torn{}, changes{}, backwards{};
  auto read = [&](int reader) {
    std::array<uint64_t, kEntries> seen{};
    for (uint64_t i = 0; !is_over.load(); i = (i + 1) % kEntries) {
      const L2Entry entry = slice.load(i);
      if (entry == L2Entry::unsettled()) continue;
      if (entry.bitmap() != seen[i]) ++changes[reader];
      if (!belong_together(entry)) ++torn[reader];
      // An entry that was seen is not followed by an older one.
      if (entry.bitmap() < seen[i]) ++backwards[reader];
      seen[i] = entry.bitmap();
    }
  };
  std::vector<std::thread> threads;
  for (int reader = 0; reader < kReaders; ++reader) threads.emplace_back(read, reader);
  auto is_enough = [&changes] {
    return std::all_of(changes.begin(), changes.end(),
                       [](const auto& one) { return one.load() >= kChangesWanted; });
  };
  uint64_t generation = 0;
  while (generation < kGenerationsMax && (generation % 256 != 0 || !is_enough())) {
    ++generation;
    for (uint64_t i = 0; i < kEntries; ++i) slice.store(i, entry_of(generation));
  }
  is_over = true;
  for (std::thread& thread : threads) thread.join();
  for (int reader = 0; reader < kReaders; ++reader) {
    EXPECT_GT(changes[reader].load(), 0u);
    EXPECT_EQ(torn[reader].load(), 0u);
    EXPECT_EQ(backwards[reader].load(), 0u);
  }
  EXPECT_EQ(slice.load(0), entry_of(generation));
}

TEST(SliceTest, TheHomeShardAlwaysSeesTheEntry) {
  Slice slice(0, kEntries, true);
  for (uint64_t generation = 0; generation < 100; ++generation) {
    slice.store(1, entry_of(generation));
    EXPECT_EQ(slice.load(1), entry_of(generation));
  }
  EXPECT_EQ(slice.load(0), L2Entry::unallocated());
}

TEST(SliceTest, WithoutSubclustersThereIsNoSecondWord) {
  Slice slice(0, kEntries, false);
  slice.store(2, L2Entry::owned(HostOffset(1 << 16)));
  EXPECT_EQ(slice.load(2), L2Entry::owned(HostOffset(1 << 16)));
  EXPECT_EQ(slice.bitmaps, nullptr);
}

}  // namespace
}  // namespace ringdisk::qcow2
