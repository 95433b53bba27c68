// SPDX-License-Identifier: Apache-2.0
// walk_map over a queue whose block status is written down: what is merged, what is kept apart, and
// that the stretches are the whole range, in order.
#include "jobs/map.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <vector>

#include "base/limits.h"
#include "nodes/mem.h"
#include "sim/seeds.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

// Gives the status of pieces that lie end to end from 0 on, one look-up at a time. Nothing else of
// a queue is asked for.
class WrittenDownQueue final : public DeviceQueue {
 public:
  void add(BlockStatus status) {
    begins_.push_back(size_);
    pieces_.push_back(status);
    size_ += status.length.value();
  }
  uint64_t size() const { return size_; }

  Task<BlockStatus> block_status(GuestRange range, uint32_t depth_max) override {
    EXPECT_EQ(depth_max, limits::kBackingDepthMax) << "the whole chain is asked for";
    if (++look_ups == fail_at) co_return Error::from_errno(EIO, "block status");
    const uint64_t at = range.offset.value();
    size_t index = 0;
    while (index + 1 < begins_.size() && begins_[index + 1] <= at) ++index;
    BlockStatus status = pieces_[index];
    const uint64_t into = at - begins_[index];
    if (status.host) *status.host = *status.host + ByteCount(into);
    status.length = std::min(ByteCount(status.length.value() - into), range.length);
    co_return status;
  }

  DeviceNode& node() override { UNREACHABLE("not asked for"); }
  const DeviceCounters& counters() const override { UNREACHABLE("not asked for"); }
  Task<void> read(GuestOffset, MutableBuffers) override { UNREACHABLE("not asked for"); }
  Task<void> write(GuestOffset, ConstBuffers, WriteOptions) override {
    UNREACHABLE("not asked for");
  }
  Task<void> write_compressed(GuestOffset, Bytes, CompressOptions) override {
    UNREACHABLE("map writes nothing");
  }
  Task<void> write_zeroes(GuestRange, ZeroOptions) override { UNREACHABLE("not asked for"); }
  Task<void> discard(GuestRange) override { UNREACHABLE("not asked for"); }
  Task<void> flush() override { UNREACHABLE("not asked for"); }

  uint64_t look_ups = 0;
  uint64_t fail_at = 0;  // counted from 1; 0: never

 private:
  std::vector<uint64_t> begins_;
  std::vector<BlockStatus> pieces_;
  uint64_t size_ = 0;
};

struct Files {
  MemNode one{"one", 1, ByteCount(0)};
  MemNode other{"other", 2, ByteCount(0)};
};

BlockStatus data_at(const StorageNode& file, uint64_t host, uint64_t length) {
  BlockStatus status;
  status.length = ByteCount(length);
  status.present = status.data = true;
  status.host = HostOffset(host);
  status.storage = &file;
  return status;
}

BlockStatus zeros(uint64_t length, uint32_t depth = 0) {
  BlockStatus status;
  status.length = ByteCount(length);
  status.present = status.zero = true;
  status.depth = depth;
  return status;
}

Result<std::vector<MapEntry>> walk(WrittenDownQueue& queue, uint64_t begin, uint64_t end,
                                   uint64_t seed = 1) {
  sim::SimWorld world(seed, 1);
  std::vector<MapEntry> entries;
  auto visit = [&entries](const MapEntry& entry) -> Result<void> {
    entries.push_back(entry);
    return {};
  };
  const GuestRange range = GuestRange::between(GuestOffset(begin), GuestOffset(end));
  auto root = [&](Shard&) { return walk_map(queue, range, visit); };
  RETURN_IF_ERROR(world.run(root));
  return entries;
}

TEST(WalkMapTest, WhatIsAlikeAndGoesOnIsOneStretch) {
  Files files;
  WrittenDownQueue queue;
  for (uint64_t i = 0; i < 1000; ++i) queue.add(data_at(files.one, 7000 + i * 512, 512));
  for (uint64_t i = 0; i < 10; ++i) queue.add(zeros(4096));
  std::vector<MapEntry> entries = walk(queue, 0, queue.size()).value();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].start.value(), 0u);
  EXPECT_EQ(entries[0].status.length.value(), 512'000u);
  EXPECT_EQ(entries[0].status.host->value(), 7000u);
  EXPECT_EQ(entries[1].start.value(), 512'000u);
  EXPECT_EQ(entries[1].status.length.value(), 40'960u);
  EXPECT_TRUE(entries[1].status.zero);
}

TEST(WalkMapTest, EachDifferenceBeginsAStretch) {
  Files files;
  const BlockStatus first = data_at(files.one, 0, 512);
  std::vector<BlockStatus> others(7, data_at(files.one, 512, 512));
  others[0].zero = true;
  others[1].data = false;
  others[2].present = false;
  others[3].compressed = true;
  others[4].depth = 1;
  others[5].host = HostOffset(1024);
  others[6].storage = &files.other;
  others.push_back(data_at(files.one, 512, 512));
  others.back().host.reset();
  for (size_t i = 0; i < others.size(); ++i) {
    WrittenDownQueue queue;
    queue.add(first);
    queue.add(others[i]);
    EXPECT_EQ(walk(queue, 0, 1024).value().size(), 2u) << "difference " << i;
  }
}

TEST(WalkMapTest, ARangeIsCutAtBothEnds) {
  Files files;
  WrittenDownQueue queue;
  queue.add(data_at(files.one, 1'000'000, 65536));
  queue.add(zeros(65536));
  std::vector<MapEntry> entries = walk(queue, 1000, 65536 + 512).value();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].start.value(), 1000u);
  EXPECT_EQ(entries[0].status.host->value(), 1'001'000u);
  EXPECT_EQ(entries[0].status.length.value(), 64536u);
  EXPECT_EQ(entries[1].status.length.value(), 512u);
}

TEST(WalkMapTest, AnEmptyRangeHasNoStretch) {
  WrittenDownQueue queue;
  queue.add(zeros(512));
  EXPECT_TRUE(walk(queue, 512, 512).value().empty());
  EXPECT_EQ(queue.look_ups, 0u);
}

TEST(WalkMapTest, TheErrorOfALookUpOrAVisitEndsTheWalk) {
  WrittenDownQueue queue;
  for (uint32_t depth = 0; depth < 5; ++depth) queue.add(zeros(512, depth));
  queue.fail_at = 3;
  EXPECT_EQ(walk(queue, 0, queue.size()).error().errno_value, EIO);
  queue.fail_at = 0;
  queue.look_ups = 0;
  sim::SimWorld world(1, 1);
  auto refuse = [](const MapEntry&) -> Result<void> { return Error::from_errno(EPIPE, "print"); };
  const GuestRange all = GuestRange::between(GuestOffset(0), GuestOffset(queue.size()));
  auto root = [&](Shard&) { return walk_map(queue, all, refuse); };
  EXPECT_EQ(world.run(root).error().errno_value, EPIPE);
  EXPECT_EQ(queue.look_ups, 2u) << "the first stretch is known when the second begins";
}

// Random pieces: the stretches are the range end to end, none continues the one before, and each
// byte has the status of its own look-up.
TEST(WalkMapTest, StretchesAreTheRangeAndAsLongAsTheyCanBe) {
  sim::for_each_seed(50, [](uint64_t seed) {
    Random random(seed);
    Files files;
    WrittenDownQueue queue;
    uint64_t host = 0;
    for (int i = 0; i < 600; ++i) {
      const uint64_t length = 512 * (1 + random.below(8));
      if (random.chance(30)) {
        queue.add(zeros(length, static_cast<uint32_t>(random.below(2))));
      } else {
        if (random.chance(10)) host += 65536;
        queue.add(data_at(random.chance(95) ? files.one : files.other, host, length));
        host += length;
      }
    }
    const uint64_t begin = random.below(queue.size() / 2);
    const uint64_t end = begin + 1 + random.below(queue.size() - begin);
    std::vector<MapEntry> entries = walk(queue, begin, end, seed).value();
    uint64_t at = begin;
    for (size_t i = 0; i < entries.size(); ++i) {
      ASSERT_EQ(entries[i].start.value(), at);
      if (i != 0) {
        EXPECT_FALSE(continues(entries[i - 1], entries[i].status)) << at;
      }
      at += entries[i].status.length.value();
    }
    ASSERT_EQ(at, end);
    for (const MapEntry& entry : entries) {
      const uint64_t into = random.below(entry.status.length.value());
      const uint64_t place = entry.start.value() + into;
      std::vector<MapEntry> alone = walk(queue, place, place + 1).value();
      ASSERT_EQ(alone.size(), 1u);
      EXPECT_EQ(alone[0].status.zero, entry.status.zero);
      EXPECT_EQ(alone[0].status.depth, entry.status.depth);
      EXPECT_EQ(alone[0].status.storage, entry.status.storage);
      if (entry.status.host) {
        EXPECT_EQ(alone[0].status.host->value(), entry.status.host->value() + into);
      }
    }
  });
}

}  // namespace
}  // namespace ringdisk
