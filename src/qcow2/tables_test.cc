// SPDX-License-Identifier: Apache-2.0
// The pure parts below the header: table entries, refcount blocks, holes.
#include <gtest/gtest.h>

#include <vector>

#include "base/random.h"
#include "qcow2/home/free_clusters.h"
#include "qcow2/layout/l2_entry.h"
#include "qcow2/layout/refcount_block.h"
#include "sim/seeds.h"

namespace ringdisk::qcow2 {
namespace {

constexpr Geometry k64KiB(16, 4);

TEST(L2EntryTest, KindsFollowTheSpecification) {
  auto kind = [](uint64_t raw) { return L2Entry(raw, 0).kind(k64KiB, true); };
  EXPECT_EQ(kind(0), EntryKind::kUnallocated);
  EXPECT_EQ(kind(1), EntryKind::kZero);
  EXPECT_EQ(kind(kCopied | 0x50000 | 1), EntryKind::kZero);
  EXPECT_EQ(kind(kCopied | 0x50000), EntryKind::kData);
  EXPECT_EQ(kind(0x50000), EntryKind::kData);
  EXPECT_EQ(kind(kCopied), EntryKind::kInvalid);
  EXPECT_EQ(kind(kCopied | 0x50200), EntryKind::kInvalid);
  EXPECT_EQ(kind(0x50000 | 8), EntryKind::kInvalid);
  EXPECT_EQ(kind(uint64_t{1} << 60 | 0x50000), EntryKind::kInvalid);
  EXPECT_EQ(kind(kCopied | 0x50000 | kRejected), EntryKind::kInvalid);
  EXPECT_EQ(kind(kCompressed | 1), EntryKind::kCompressed);
  EXPECT_EQ(kind(kCompressed | kCopied | 1), EntryKind::kInvalid);
  EXPECT_EQ(kind(kCompressed), EntryKind::kInvalid);
}

TEST(L2EntryTest, Version2HasNoZeroFlag) {
  EXPECT_EQ(L2Entry(1, 0).kind(k64KiB, false), EntryKind::kInvalid);
  EXPECT_EQ(L2Entry(kCopied | 0x50001, 0).kind(k64KiB, false), EntryKind::kInvalid);
}

TEST(L2EntryTest, OnlyOwnThawedDataIsWrittenInPlace) {
  EXPECT_TRUE(L2Entry(kCopied | 0x50000, 0).is_writable_in_place());
  EXPECT_FALSE(L2Entry(0x50000, 0).is_writable_in_place());
  EXPECT_FALSE(L2Entry(kCopied | 0x50000 | kFrozen, 0).is_writable_in_place());
  EXPECT_FALSE(L2Entry(kCopied | 0x50001, 0).is_writable_in_place());
  EXPECT_FALSE(L2Entry(kCompressed | 0x50000, 0).is_writable_in_place());
  EXPECT_EQ(L2Entry(kCopied | 0x50000 | kFrozen, 0).kind(k64KiB, true), EntryKind::kData);
  EXPECT_EQ(L2Entry(kCopied | 0x50000 | kFrozen, 0).persistent(), kCopied | 0x50000);
}

TEST(L2EntryTest, CompressedDescriptorsOfEveryClusterSize) {
  for (uint32_t bits = 9; bits <= 21; ++bits) {
    Geometry geometry(bits, 4);
    Random random(bits);
    for (int i = 0; i < 100; ++i) {
      uint64_t offset = 1 + random.below((uint64_t{1} << std::min(62 - (bits - 8), 56u)) - 1);
      uint64_t extra = random.below(uint64_t{1} << (bits - 8));
      L2Entry entry = L2Entry::compressed(geometry, HostOffset(offset), extra);
      ASSERT_EQ(entry.kind(geometry, true), EntryKind::kCompressed);
      CompressedPlace place = entry.compressed_place(geometry);
      EXPECT_EQ(place.offset.value(), offset);
      EXPECT_EQ((place.offset + place.length).value(), (offset / 512 + 1 + extra) * 512);
      EXPECT_EQ(entry.persistent(), entry.raw());
    }
  }
}

TEST(L1EntryTest, ReservedBitsAndMisplacedTablesAreInvalid) {
  EXPECT_TRUE(L1Entry(0).is_valid(k64KiB));
  EXPECT_TRUE(L1Entry(kCopied | 0x30000).is_valid(k64KiB));
  EXPECT_TRUE(L1Entry(0x30000).is_valid(k64KiB));
  EXPECT_FALSE(L1Entry(kCopied).is_valid(k64KiB));
  EXPECT_FALSE(L1Entry(kCopied | 0x30001).is_valid(k64KiB));
  EXPECT_FALSE(L1Entry(kCopied | 0x30200).is_valid(k64KiB));
  EXPECT_FALSE(L1Entry(uint64_t{1} << 62 | 0x30000).is_valid(k64KiB));
}

TEST(RefcountBlockTest, NumbersOfEveryWidthKeepApart) {
  for (uint32_t order = 0; order <= 6; ++order) {
    std::vector<std::byte> block(512);
    std::vector<uint64_t> model(512 * 8 >> order);
    Random random(order + 1);
    for (int i = 0; i < 5000; ++i) {
      uint64_t index = random.below(model.size());
      uint64_t value = random.next();
      if (order < 6) value &= (uint64_t{1} << (1u << order)) - 1;
      store_refcount(block, order, index, value);
      model[index] = value;
    }
    for (size_t i = 0; i < model.size(); ++i) {
      ASSERT_EQ(load_refcount(block, order, i), model[i]) << "width " << (1 << order);
    }
  }
}

TEST(RefcountBlockTest, LayoutIsThatOfTheSpecification) {
  std::vector<std::byte> block(512);
  store_refcount(block, 0, 9, 1);  // bit 1 of byte 1
  store_refcount(block, 2, 5, 0xa);
  store_refcount(block, 4, 2, 0x1234);
  EXPECT_EQ(block[1], std::byte{2});
  EXPECT_EQ(block[2], std::byte{0xa0});
  EXPECT_EQ(block[4], std::byte{0x12});
  EXPECT_EQ(block[5], std::byte{0x34});
}

TEST(FreeClustersTest, HoldsExactlyWhatWasAddedAndNotTaken) {
  sim::for_each_seed(50, [](uint64_t seed) {
    Random random(seed);
    FreeClusters free;
    std::vector<bool> model(300);
    for (int step = 0; step < 500; ++step) {
      if (random.chance(50)) {
        uint64_t at = random.below(model.size());
        uint64_t count = 0, wanted = 1 + random.below(8);
        while (count < wanted && at + count < model.size() && !model[at + count]) ++count;
        if (count == 0) continue;
        free.add({ClusterIndex(at), count});
        for (uint64_t i = 0; i < count; ++i) model[at + i] = true;
      } else {
        uint64_t wanted = 1 + random.below(6);
        std::optional<ClusterRun> run = free.find(wanted);
        if (!run) run = free.find_any(wanted);
        bool any = std::find(model.begin(), model.end(), true) != model.end();
        ASSERT_EQ(run.has_value(), any);
        if (!run) continue;
        free.remove(*run);
        for (uint64_t i = 0; i < run->count; ++i) {
          ASSERT_TRUE(model[run->first.value() + i]);
          model[run->first.value() + i] = false;
        }
      }
    }
    uint64_t left = static_cast<uint64_t>(std::count(model.begin(), model.end(), true));
    while (std::optional<ClusterRun> run = free.find_any(1000)) {
      free.remove(*run);
      left -= run->count;
    }
    EXPECT_EQ(left, 0u);
  });
}

constexpr Geometry kExtended(16, 4, true);

EntryKind extended_kind(uint64_t raw, uint64_t bitmap) {
  return L2Entry(raw, bitmap).kind(kExtended, true);
}

TEST(L2EntryTest, ExtendedEntriesAreJudgedByBothWords) {
  constexpr uint64_t kAllData = 0xffffffff, kAllZeros = kAllData << 32;
  EXPECT_EQ(extended_kind(0, 0), EntryKind::kSubclusters);
  EXPECT_EQ(extended_kind(0, kAllZeros), EntryKind::kSubclusters);
  EXPECT_EQ(extended_kind(kCopied | 0x50000, kAllData), EntryKind::kSubclusters);
  EXPECT_EQ(extended_kind(0x50000, 0), EntryKind::kSubclusters);
  EXPECT_EQ(extended_kind(kCompressed | 0x50123, 0), EntryKind::kCompressed);
  // Data of no cluster, data and zeros at once, a flag of version 3, a packed one with a bitmap.
  EXPECT_EQ(extended_kind(0, 1), EntryKind::kInvalid);
  EXPECT_EQ(extended_kind(kCopied, 0), EntryKind::kInvalid);
  EXPECT_EQ(extended_kind(kCopied | 0x50000, 0x100000001), EntryKind::kInvalid);
  EXPECT_EQ(extended_kind(kCopied | 0x50001, kAllZeros), EntryKind::kInvalid);
  EXPECT_EQ(extended_kind(kCopied | 0x50800, kAllData), EntryKind::kInvalid);
  EXPECT_EQ(extended_kind(kCompressed | 0x50123, 1), EntryKind::kInvalid);
  EXPECT_EQ(L2Entry::unsettled().kind(kExtended, true), EntryKind::kInvalid);
}

TEST(L2EntryTest, RunsOfSubclustersAreCountedToTheEnd) {
  const L2Entry entry = L2Entry::owned(HostOffset(0x50000)).with_subclusters(0x80000006, 0x18);
  const auto at = [&entry](uint32_t index) {
    return std::make_pair(entry.subcluster_kind(index), entry.subcluster_run(index));
  };
  using Run = std::pair<EntryKind, uint32_t>;
  EXPECT_EQ(at(0), Run(EntryKind::kUnallocated, 1));
  EXPECT_EQ(at(1), Run(EntryKind::kData, 2));
  EXPECT_EQ(at(2), Run(EntryKind::kData, 1));
  EXPECT_EQ(at(3), Run(EntryKind::kZero, 2));
  EXPECT_EQ(at(5), Run(EntryKind::kUnallocated, 26));
  EXPECT_EQ(at(31), Run(EntryKind::kData, 1));
  EXPECT_EQ(L2Entry::unallocated().subcluster_run(7), 25u);
  EXPECT_EQ(L2Entry::owned(HostOffset(0x50000)).with_subclusters(~0u, 0).subcluster_run(0), 32u);
  EXPECT_EQ(L2Entry::unallocated().with_subclusters(0, ~0u).subcluster_run(31), 1u);
}

}  // namespace
}  // namespace ringdisk::qcow2
