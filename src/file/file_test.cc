// SPDX-License-Identifier: Apache-2.0
// FileNode against real files: tmpfs and a disk's file system, both loops, every cache mode.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/random.h"
#include "block/storage_access.h"
#include "file/file_node.h"
#include "file/temporary_file_for_test.h"
#include "runtime/next_turn.h"
#include "sim/real_world.h"
#include "sim/seeds.h"

namespace ringdisk::file {
namespace {

using limits::kKiB;
using limits::kMiB;
using sim::RealWorld;

struct Setting {
  const char* directory;
  LoopKind loop;
  CacheMode cache;
};

std::string name_of_setting(const testing::TestParamInfo<Setting>& info) {
  std::string name = info.param.directory == kMemoryDirectory ? "Memory" : "Disk";
  name += info.param.loop == LoopKind::kEpoll ? "Epoll" : "Best";
  return name + std::string(name_of(info.param.cache));
}

class FileTest : public testing::TestWithParam<Setting> {
 protected:
  FileTest() : world_(GetParam().loop, 2), file_(GetParam().directory) {}

  Task<std::unique_ptr<SharedStorage>> open() {
    Options options;
    options.set("filename", file_.path());
    OpenMode mode;
    mode.cache = GetParam().cache;
    StorageDriver driver = file_driver();
    std::unique_ptr<StorageNode> node = co_await driver.open(world_.world(), options, mode);
    co_return std::make_unique<SharedStorage>(std::move(node));
  }
  // Opens the file, runs body(StorageAccess&) on shard 0, closes everything.
  template <class F>
  Result<void> with_file(F body) {
    auto root = [this, &body](Shard& shard) { return use_file(shard, body); };
    return world_.run(root);
  }
  template <class F>
  Task<void> use_file(Shard& shard, F& body) {
    std::unique_ptr<SharedStorage> storage = co_await open();
    std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*storage, shard);
    Result<void> done = co_await body(*access).result();
    access.reset();
    co_await storage->node->close();
    co_await std::move(done);
  }

  RealWorld world_;
  TemporaryFile file_;
};

Task<void> write_at(StorageAccess& file, uint64_t offset, Bytes bytes) {
  co_await file.write(HostOffset(offset), ConstBuffers(bytes));
}
Task<void> expect_content(StorageAccess& file, uint64_t offset, const std::vector<std::byte>& all) {
  std::vector<std::byte> read(all.size(), std::byte{0xee});
  co_await file.read(HostOffset(offset), MutableBuffers(MutableBytes(read)));
  EXPECT_TRUE(read == all) << "at " << offset;
}

// --- the model
// ------------------------------------------------------------------------------------

// Random operations of one shard on its own part of the file against an array.
struct Part {
  uint64_t base;
  std::vector<std::byte> model;
};
constexpr uint64_t kPartBytes = 3 * kMiB;

Task<void> do_one(StorageAccess& file, Part& part, Random& random) {
  const uint64_t at = random.below(kPartBytes), longest = kPartBytes - at;
  const uint64_t length =
      1 + random.below(random.chance(80) ? std::min(longest, 20000ul) : longest);
  const auto begin = part.model.begin() + static_cast<ptrdiff_t>(at);
  HostRange range(HostOffset(part.base + at), ByteCount(length));
  if (random.chance(50)) {
    std::vector<std::byte> bytes = block_pattern(random.next(), length);
    WriteOptions options;
    options.fua = random.chance(10);
    co_await file.write(range.offset, ConstBuffers(Bytes(bytes)), options);
    std::copy(bytes.begin(), bytes.end(), begin);
  } else if (random.chance(50)) {
    ZeroOptions options;
    options.may_unmap = random.chance(50);
    co_await file.write_zeroes(range, options);
    std::fill_n(begin, length, std::byte{0});
  } else if (random.chance(20)) {
    co_await file.flush();
  } else if (random.chance(20)) {
    co_await file.discard(range);
    // As before or zeros; from now on whatever it is now.
    std::vector<std::byte> now(length);
    co_await file.read(range.offset, MutableBuffers(MutableBytes(now)));
    for (size_t i = 0; i < length; ++i) {
      if (now[i] != begin[static_cast<ptrdiff_t>(i)]) {
        EXPECT_EQ(now[i], std::byte{0});
        begin[static_cast<ptrdiff_t>(i)] = std::byte{0};
      }
    }
  } else {
    StorageExtent extent = co_await file.find_extent(range);
    EXPECT_FALSE(extent.length.is_zero());
    EXPECT_LE(extent.length, range.length);
    auto is_zero = [](std::byte byte) { return byte == std::byte{0}; };
    const auto found = static_cast<ptrdiff_t>(extent.length.value());
    EXPECT_TRUE(!extent.zero || std::all_of(begin, begin + found, is_zero));
  }
}

Task<void> hammer(SharedStorage& storage, Shard& shard, Part& part, uint64_t seed) {
  std::unique_ptr<StorageAccess> file = co_await StorageAccess::open(storage, shard);
  Random random(seed);
  for (int step = 0; step < 60; ++step) co_await do_one(*file, part, random);
  co_await file->flush();
  co_await expect_content(*file, part.base, part.model);
}

TEST_P(FileTest, RandomOperationsOfTwoShardsMatchTheModel) {
  sim::for_each_seed(3, [this](uint64_t seed) {
    TemporaryFile fresh(GetParam().directory);
    std::swap(file_, fresh);
    auto open_it = [this](Shard&) { return open(); };
    Result<std::unique_ptr<SharedStorage>> storage = world_.run(open_it);
    ASSERT_TRUE(storage.ok());
    std::vector<Part> parts(2);
    for (size_t i = 0; i < parts.size(); ++i) {
      parts[i].base = i * kPartBytes + (i == 0 ? 0 : 8192);
      parts[i].model.resize(kPartBytes);
    }
    auto body = [&](Shard& shard) {
      return hammer(*storage.value(), shard, parts[shard.index()],
                    sim::mix_seed(seed, shard.index()));
    };
    EXPECT_TRUE(world_.run_on_all(body).ok());
    auto close = [&](Shard&) { return storage.value()->node->close(); };
    EXPECT_TRUE(world_.run(close).ok());
    // What other programs see.
    for (const Part& part : parts) {
      EXPECT_TRUE(file_.read(part.base, kPartBytes) == part.model);
    }
  });
}

// --- ends and sizes
// -------------------------------------------------------------------------------

TEST_P(FileTest, AFileOfOddSizeIsReadToItsLastByteAndZerosBehind) {
  std::vector<std::byte> content = block_pattern(3, 10001);
  file_.write(0, content);
  auto body = [&](StorageAccess& file) -> Task<void> {
    EXPECT_EQ(file.size().value(), 10001u);
    content.resize(12000);
    return expect_content(file, 0, content);
  };
  EXPECT_TRUE(with_file(body).ok());
}

Task<void> grow_in_all_ways(StorageAccess& file) {
  std::vector<std::byte> bytes = block_pattern(1, 5000), expected(1000000);
  co_await write_at(file, 70000, bytes);
  std::copy(bytes.begin(), bytes.end(), expected.begin() + 70000);
  EXPECT_GE(file.size().value(), 75000u);
  HostRange zeroes(HostOffset(200000), ByteCount(100000));
  co_await file.write_zeroes(zeroes);
  EXPECT_GE(file.size().value(), 300000u);
  ZeroOptions keep;
  keep.may_unmap = false;
  HostRange more(HostOffset(400000), ByteCount(100000));
  co_await file.write_zeroes(more, keep);
  EXPECT_GE(file.size().value(), 500000u);
  co_await file.resize(ByteCount(1000000));
  EXPECT_EQ(file.size().value(), 1000000u);
  co_await expect_content(file, 0, expected);
  co_await file.resize(ByteCount(72000));
  co_await file.resize(ByteCount(1000000));
  std::fill(expected.begin() + 72000, expected.end(), std::byte{0});
  co_await expect_content(file, 0, expected);
}

TEST_P(FileTest, GrowsByWritingZeroingAndResizingAndReadsZerosThere) {
  EXPECT_TRUE(with_file(&grow_in_all_ways).ok());
  EXPECT_EQ(file_.size(), 1000000u);
}

TEST_P(FileTest, AFileThatWasCutByOthersIsAnErrorAndNoZeros) {
  file_.resize(kMiB);
  auto body = [this](StorageAccess& file) {
    file_.resize(4096);
    static std::vector<std::byte> target(kMiB);
    return file.read(HostOffset(0), MutableBuffers(MutableBytes(target)));
  };
  Result<void> read = with_file(body);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().errno_value, EIO);
}

// --- space
// ----------------------------------------------------------------------------------------

Task<void> punch_holes(StorageAccess& file) {
  std::vector<std::byte> bytes = block_pattern(1, 4 * kMiB);
  co_await write_at(file, 0, bytes);
  co_await file.flush();
  ByteCount full = co_await file.node().allocated_size();
  EXPECT_GE(full.value(), 4 * kMiB);
  const ByteCount mebibyte(kMiB);
  HostRange first(HostOffset(0), mebibyte), second(HostOffset(kMiB), mebibyte);
  co_await file.discard(first);
  ZeroOptions fast;
  fast.fast_only = true;
  co_await file.write_zeroes(second, fast);
  std::fill_n(bytes.begin(), 2 * kMiB, std::byte{0});
  co_await expect_content(file, 0, bytes);
  ByteCount left = co_await file.node().allocated_size();
  EXPECT_LE(left.value(), 2 * kMiB + 64 * kKiB);
  const ByteCount four(4 * kMiB);
  HostRange all(HostOffset(0), four);
  StorageExtent hole = co_await file.find_extent(all);
  EXPECT_TRUE(hole.zero);
  EXPECT_EQ(hole.length.value(), 2 * kMiB);
  HostRange rest(HostOffset(2 * kMiB), ByteCount(2 * kMiB));
  StorageExtent content = co_await file.find_extent(rest);
  EXPECT_FALSE(content.zero);
  EXPECT_EQ(content.length.value(), 2 * kMiB);
  co_await file.allocate(first);
  ByteCount again = co_await file.node().allocated_size();
  EXPECT_GE(again.value(), 3 * kMiB);
  co_await expect_content(file, 0, bytes);
}

TEST_P(FileTest, DiscardAndZeroesMakeHolesAndAllocateFillsThem) {
  EXPECT_TRUE(with_file(&punch_holes).ok());
}

// While one shard makes the file grow by zeroing, another writes further out: nothing may be cut.
Task<void> grow_by_zeroing(SharedStorage& storage, Shard& shard) {
  std::unique_ptr<StorageAccess> file = co_await StorageAccess::open(storage, shard);
  for (uint64_t i = 0; i < 200; ++i) {
    const uint64_t at = (2 * i + shard.index()) * 4096;
    if (shard.index() == 0) {
      HostRange range(HostOffset(at), ByteCount(4096));
      co_await file->write_zeroes(range);
    } else {
      std::vector<std::byte> bytes(4096, std::byte{0x5a});
      co_await write_at(*file, at, bytes);
    }
  }
}

TEST_P(FileTest, GrowingByZeroesCutsOffNothingThatOthersWrite) {
  auto open_it = [this](Shard&) { return open(); };
  Result<std::unique_ptr<SharedStorage>> storage = world_.run(open_it);
  ASSERT_TRUE(storage.ok());
  auto body = [&](Shard& shard) { return grow_by_zeroing(*storage.value(), shard); };
  EXPECT_TRUE(world_.run_on_all(body).ok());
  auto close = [&](Shard&) { return storage.value()->node->close(); };
  EXPECT_TRUE(world_.run(close).ok());
  std::vector<std::byte> all = file_.read(0, 400 * 4096);
  for (size_t at = 0; at < all.size(); ++at) {
    const bool written = (at / 4096) % 2 == 1;
    ASSERT_EQ(all[at], written ? std::byte{0x5a} : std::byte{0}) << at;
  }
}

// --- transfers
// ------------------------------------------------------------------------------------

Task<void> scatter(StorageAccess& file) {
  std::vector<std::byte> bytes = block_pattern(9, 40 * 4096), read(40 * 4096);
  std::vector<iovec> sources, targets;
  for (size_t i = 0; i < 40; ++i) {
    sources.push_back({bytes.data() + i * 4096, 4096});
    targets.push_back({read.data() + (39 - i) * 4096, 4096});
  }
  co_await file.write(HostOffset(0), ConstBuffers(sources.data(), sources.size()));
  co_await file.read(HostOffset(0), MutableBuffers(targets.data(), targets.size()));
  for (size_t i = 0; i < 40; ++i) {
    EXPECT_TRUE(std::equal(bytes.begin() + static_cast<ptrdiff_t>(i * 4096),
                           bytes.begin() + static_cast<ptrdiff_t>((i + 1) * 4096),
                           read.begin() + static_cast<ptrdiff_t>((39 - i) * 4096)));
  }
}

TEST_P(FileTest, RequestsOfManyPartsArriveInOrder) { EXPECT_TRUE(with_file(&scatter).ok()); }

// A write that the system stops half-way (here by a limit on file sizes) fails as a whole, says
// why, and the rest of the file is as it was.
Task<void> write_over_the_limit(StorageAccess& file) {
  std::vector<std::byte> bytes = block_pattern(4, 2 * kMiB);
  co_await write_at(file, 512 * kKiB, bytes);
}

TEST_P(FileTest, AWriteThatFitsOnlyInPartFailsWithTheCause) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  auto old_handler = signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = kMiB;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  Result<void> written = with_file(&write_over_the_limit);
  EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().errno_value, EFBIG);
  EXPECT_NE(written.error().node, 0u);
  EXPECT_TRUE(with_file(&scatter).ok()) << "the node's flushes must not be broken by it";
}

Task<void> count_turns(Shard& shard, const bool& done, uint32_t& turns) {
  while (!done) {
    co_await NextTurn(shard);
    ++turns;
  }
}
Task<void> transfer_much(StorageAccess& file, bool& done) {
  std::vector<std::byte> bytes = block_pattern(1, 16 * kMiB);
  co_await write_at(file, 0, bytes);
  co_await expect_content(file, 0, bytes);
  done = true;
}
Task<void> transfer_and_count(StorageAccess& file, uint32_t& turns) {
  bool done = false;
  auto one = [&](size_t which) {
    return which == 0 ? transfer_much(file, done) : count_turns(Shard::current(), done, turns);
  };
  co_await when_all(2, one);
}

TEST_P(FileTest, LargeTransfersLetTheLoopHaveItsTurns) {
  uint32_t turns = 0;
  auto body = [&turns](StorageAccess& file) { return transfer_and_count(file, turns); };
  EXPECT_TRUE(with_file(body).ok());
  // 16 MiB written and read: through the ring in O_DIRECT the loop spins meanwhile, in place it has
  // a turn for each kInPlaceTurnBytes.
  EXPECT_GE(turns, 32u);
}

Task<void> flush_from_many(StorageAccess& file) {
  std::vector<std::byte> bytes = block_pattern(1, 4096);
  co_await write_at(file, 0, bytes);
  auto one = [&file](size_t) { return file.flush(); };
  co_await when_all(50, one);
  co_await file.flush();
}

TEST_P(FileTest, ManyFlushesAtOnceAllEnd) { EXPECT_TRUE(with_file(&flush_from_many).ok()); }

INSTANTIATE_TEST_SUITE_P(
    AllWays, FileTest,
    testing::Values(Setting{kMemoryDirectory, LoopKind::kBest, CacheMode::kWriteback},
                    Setting{kMemoryDirectory, LoopKind::kBest, CacheMode::kNone},
                    Setting{kMemoryDirectory, LoopKind::kEpoll, CacheMode::kWriteback},
                    Setting{kDiskDirectory, LoopKind::kBest, CacheMode::kWriteback},
                    Setting{kDiskDirectory, LoopKind::kBest, CacheMode::kNone},
                    Setting{kDiskDirectory, LoopKind::kBest, CacheMode::kWritethrough},
                    Setting{kDiskDirectory, LoopKind::kBest, CacheMode::kDirectsync},
                    Setting{kDiskDirectory, LoopKind::kBest, CacheMode::kUnsafe},
                    Setting{kDiskDirectory, LoopKind::kEpoll, CacheMode::kWriteback},
                    Setting{kDiskDirectory, LoopKind::kEpoll, CacheMode::kNone}),
    name_of_setting);

}  // namespace
}  // namespace ringdisk::file
