// SPDX-License-Identifier: Apache-2.0
// SparseMemory alone: content, extents, what it gives back.
#include "nodes/sparse_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/limits.h"
#include "base/random.h"
#include "sim/seeds.h"

namespace ringdisk {
namespace {

using limits::kGiB;

constexpr uint64_t kTiB = 1024 * kGiB;
constexpr uint64_t kChunk = SparseMemory::kChunkBytes;

// `length` bytes whose every 512-byte block has its own content.
std::vector<std::byte> pattern(uint64_t seed, size_t length) {
  std::vector<std::byte> bytes(length);
  for (size_t at = 0; at < length; ++at) {
    uint64_t word = Random(seed + at / 512).next();
    bytes[at] = static_cast<std::byte>(word >> (8 * (at % 8)));
  }
  return bytes;
}

HostRange range(uint64_t offset, uint64_t length) {
  return HostRange(HostOffset(offset), ByteCount(length));
}

std::vector<std::byte> read_back(const SparseMemory& memory, uint64_t offset, size_t length) {
  std::vector<std::byte> bytes(length, std::byte{0xee});
  memory.read(HostOffset(offset), bytes);
  return bytes;
}

TEST(SparseMemoryTest, WhatWasNeverWrittenReadsAsZerosAndTakesNothing) {
  SparseMemory memory;
  EXPECT_EQ(read_back(memory, 7 * kTiB + 5, 3 * kChunk), std::vector<std::byte>(3 * kChunk));
  EXPECT_EQ(memory.allocated_bytes(), 0u);
}

TEST(SparseMemoryTest, KeepsWhatWasWrittenAcrossChunksAndTables) {
  SparseMemory memory;
  uint64_t leaf_end = uint64_t{1} << (SparseMemory::kChunkBits + SparseMemory::kTableBits);
  for (uint64_t at : {uint64_t{0}, kChunk - 100, leaf_end - 700, 8 * kTiB - 4096,
                      SparseMemory::kBytesMax - 3 * kChunk}) {
    std::vector<std::byte> written = pattern(at, 2 * kChunk + 1234);
    memory.write(HostOffset(at), written);
    EXPECT_EQ(read_back(memory, at, written.size()), written) << at;
  }
}

TEST(SparseMemoryTest, ZeroingGivesWholeChunksBackAndKeepsTheRest) {
  SparseMemory memory;
  std::vector<std::byte> written = pattern(1, 4 * kChunk);
  memory.write(HostOffset(0), written);
  memory.zero(range(100, 3 * kChunk));
  std::fill_n(written.begin() + 100, 3 * kChunk, std::byte{0});
  EXPECT_EQ(read_back(memory, 0, written.size()), written);
  EXPECT_EQ(memory.allocated_bytes(), 2 * kChunk);
}

TEST(SparseMemoryTest, ExtentsOfAnEmptyDiskOfEightTebibytesAreFoundInAFewLooks) {
  SparseMemory memory;
  memory.write(HostOffset(3 * kTiB), pattern(1, 512));
  uint64_t at = 0, extents = 0, data = 0;
  while (at < 8 * kTiB) {
    StorageExtent extent = memory.find_extent(range(at, 8 * kTiB - at));
    ASSERT_GT(extent.length.value(), 0u);
    if (!extent.zero) data += extent.length.value();
    at += extent.length.value();
    ++extents;
  }
  EXPECT_EQ(at, 8 * kTiB);
  EXPECT_EQ(data, kChunk);
  EXPECT_LT(extents, 20u);
}

TEST(SparseMemoryTest, RandomOperationsMatchAPlainArray) {
  sim::for_each_seed(20, [](uint64_t seed) {
    Random random(seed);
    SparseMemory memory;
    const uint64_t base = random.below(8 * kTiB), size = 6 * kChunk;
    std::vector<std::byte> model(size);
    for (int step = 0; step < 200; ++step) {
      uint64_t at = random.below(size), length = 1 + random.below(size - at);
      if (random.chance(50)) {
        std::vector<std::byte> written = pattern(random.next(), length);
        memory.write(HostOffset(base + at), written);
        std::copy(written.begin(), written.end(), model.begin() + static_cast<ptrdiff_t>(at));
      } else {
        memory.zero(range(base + at, length));
        std::fill_n(model.begin() + static_cast<ptrdiff_t>(at), length, std::byte{0});
      }
      StorageExtent extent = memory.find_extent(range(base + at, size - at));
      if (extent.zero) {
        auto begin = model.begin() + static_cast<ptrdiff_t>(at);
        EXPECT_TRUE(std::all_of(begin, begin + static_cast<ptrdiff_t>(extent.length.value()),
                                [](std::byte byte) { return byte == std::byte{0}; }));
      }
    }
    EXPECT_EQ(read_back(memory, base, size), model);
  });
}

}  // namespace
}  // namespace ringdisk
