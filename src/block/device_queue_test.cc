// SPDX-License-Identifier: Apache-2.0
// The funnel in front of a disk: what it refuses, what it counts, and the failure that sticks. And
// who closes what.
#include "block/device_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "async/scope.h"
#include "base/limits.h"
#include "nodes/raw.h"
#include "sim/sim_storage.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using sim::SimDisk;
using sim::SimDiskOptions;
using sim::SimFaults;
using sim::SimOperation;
using sim::SimStorageNode;
using sim::SimWorld;

constexpr uint32_t kNodeId = 7;
constexpr uint64_t kDiskBytes = 8192;

// A raw disk over a simulated one.
class DeviceQueueTest : public ::testing::Test {
 protected:
  // Runs body(queue), a Task<void>, on shard 0.
  template <class Body>
  Result<void> with_queue(Body body, bool read_only = false) {
    auto root = [&](Shard& shard) -> Task<void> {
      std::shared_ptr<DeviceNode> device = make_device(read_only);
      std::unique_ptr<DeviceQueue> queue = co_await device->open_queue(shard);
      Result<void> done = co_await body(*queue).result();
      queue.reset();
      co_await device->close();
      co_await device->close();  // once is enough, twice does no harm
      co_await std::move(done);
    };
    return world.run(root);
  }
  std::shared_ptr<DeviceNode> make_device(bool read_only = false) {
    SimDiskOptions options;
    options.size = ByteCount(kDiskBytes);
    options.read_only = read_only;
    disk = std::make_unique<SimDisk>(options, world.draw_seed(), nullptr, &faults);
    auto storage =
        std::make_unique<SharedStorage>(std::make_unique<SimStorageNode>(*disk, "disk", kNodeId));
    auto format =
        std::make_unique<RawNode>(std::move(storage), ByteCount(0), ByteCount(kDiskBytes));
    return std::make_shared<DeviceNode>("disk", kNodeId, std::move(format), nullptr);
  }

  SimWorld world{sim::seed_or(1), 2};
  SimFaults faults;
  std::unique_ptr<SimDisk> disk;
};

Error error_of(Result<void> result) {
  EXPECT_FALSE(result.ok());
  return result.ok() ? Error() : result.error();
}

TEST_F(DeviceQueueTest, WhatWasWrittenIsRead) {
  auto body = [&](DeviceQueue& queue) -> Task<void> {
    std::vector<std::byte> source(1000, std::byte{5}), target(1000);
    WriteOptions durable;
    durable.fua = true;
    co_await queue.write(GuestOffset(100), ConstBuffers(Bytes(source)), durable);
    co_await queue.read(GuestOffset(100), MutableBuffers(MutableBytes(target)));
    EXPECT_EQ(target, source);
    co_await queue.write_zeroes(GuestRange(GuestOffset(600), ByteCount(100)), ZeroOptions());
    co_await queue.discard(GuestRange(GuestOffset(1000), ByteCount(7000)));
    co_await queue.flush();
    co_await queue.read(GuestOffset(100), MutableBuffers(MutableBytes(target)));
    EXPECT_EQ(target[499], std::byte{5});
    EXPECT_EQ(target[500], std::byte{0});
    const DeviceCounters& counters = queue.counters();
    EXPECT_EQ(counters.reads, 2u);
    EXPECT_EQ(counters.writes, 1u);
    EXPECT_EQ(counters.zeroes, 1u);
    EXPECT_EQ(counters.discards, 1u);
    EXPECT_EQ(counters.flushes, 1u);
    EXPECT_EQ(counters.bytes_read, 2000u);
    EXPECT_EQ(counters.bytes_written, 1000u);
    EXPECT_EQ(counters.failures, 0u);
  };
  EXPECT_TRUE(with_queue(body).ok());
}

TEST_F(DeviceQueueTest, AFormatWithoutCompressedClustersRefusesThem) {
  auto body = [&](DeviceQueue& queue) -> Task<void> {
    const std::vector<std::byte> source(512, std::byte{5});
    CompressOptions options;
    Result<void> done = co_await queue.write_compressed(GuestOffset(0), source, options).result();
    const Error refused = error_of(std::move(done));
    EXPECT_EQ(refused.kind, ErrorKind::kUnsupported);
    EXPECT_EQ(refused.node, kNodeId);
    EXPECT_EQ(queue.counters().compressed_writes, 1u);
  };
  EXPECT_TRUE(with_queue(body).ok());
}

// Each kind of request to one range; the errors of all of them.
Task<std::vector<Error>> try_all(DeviceQueue& queue, uint64_t offset, uint64_t length) {
  std::vector<Error> errors;
  std::vector<std::byte> memory(static_cast<size_t>(std::min<uint64_t>(length, 1 << 20)));
  const GuestOffset at(offset);
  const GuestRange range(at, ByteCount(length));
  Result<void> done = co_await queue.read(at, MutableBuffers(MutableBytes(memory))).result();
  if (!done.ok()) errors.push_back(done.error());
  WriteOptions write_options;
  done = co_await queue.write(at, ConstBuffers(Bytes(memory)), write_options).result();
  if (!done.ok()) errors.push_back(done.error());
  ZeroOptions zero_options;
  done = co_await queue.write_zeroes(range, zero_options).result();
  if (!done.ok()) errors.push_back(done.error());
  done = co_await queue.discard(range).result();
  if (!done.ok()) errors.push_back(done.error());
  if (length != 0) {
    Result<BlockStatus> status = co_await queue.block_status(range, 0).result();
    if (!status.ok()) errors.push_back(status.error());
  }
  co_return std::move(errors);
}

TEST_F(DeviceQueueTest, RangesBeyondTheDiskAreRefusedHoweverLarge) {
  auto body = [&](DeviceQueue& queue) -> Task<void> {
    const uint64_t offsets[] = {kDiskBytes - 511,  kDiskBytes,         kDiskBytes + 1,
                                uint64_t{1} << 63, ~uint64_t{0} - 511, ~uint64_t{0}};
    for (uint64_t offset : offsets) {
      std::vector<Error> errors = co_await try_all(queue, offset, 512);
      EXPECT_EQ(errors.size(), 5u) << offset;
      for (const Error& error : errors) {
        EXPECT_EQ(error.kind, ErrorKind::kInvalid);
        EXPECT_EQ(error.node, kNodeId);
        EXPECT_EQ(error.offset, offset);
      }
    }
    const GuestRange all(GuestOffset(512), ByteCount(~uint64_t{0}));
    Result<void> zeroed = co_await queue.write_zeroes(all, ZeroOptions()).result();
    EXPECT_EQ(error_of(std::move(zeroed)).kind, ErrorKind::kInvalid);
  };
  EXPECT_TRUE(with_queue(body).ok());
}

TEST_F(DeviceQueueTest, AnEmptyRequestSucceedsUpToTheEnd) {
  auto body = [&](DeviceQueue& queue) -> Task<void> {
    for (uint64_t offset : {uint64_t{0}, uint64_t{5}, kDiskBytes}) {
      std::vector<Error> errors = co_await try_all(queue, offset, 0);
      EXPECT_TRUE(errors.empty()) << offset;
    }
  };
  EXPECT_TRUE(with_queue(body).ok());
}

TEST_F(DeviceQueueTest, AReadOnlyDiskIsReadAndFlushedOnly) {
  auto body = [&](DeviceQueue& queue) -> Task<void> {
    std::vector<Error> errors = co_await try_all(queue, 512, 512);
    EXPECT_EQ(errors.size(), 3u);
    for (const Error& error : errors) EXPECT_EQ(error.kind, ErrorKind::kDenied);
    co_await queue.flush();
  };
  EXPECT_TRUE(with_queue(body, true).ok());
}

TEST_F(DeviceQueueTest, MemoryThatIsTooLargeForOneRequestIsRefused) {
  auto root = [&](Shard& shard) -> Task<void> {
    SimDiskOptions options;
    options.size = ByteCount(uint64_t{1} << 40);
    SimDisk large(options, 1);
    auto storage = std::make_unique<SharedStorage>(std::make_unique<SimStorageNode>(large, "x", 1));
    auto format = std::make_unique<RawNode>(std::move(storage), ByteCount(0), options.size);
    DeviceNode device("x", 1, std::move(format), nullptr);
    std::unique_ptr<DeviceQueue> queue = co_await device.open_queue(shard);
    std::vector<std::byte> part(1 << 20);
    std::vector<iovec> parts(65, iovec{part.data(), part.size()});
    Result<void> read =
        co_await queue->read(GuestOffset(0), MutableBuffers(parts.data(), 65)).result();
    EXPECT_EQ(error_of(std::move(read)).kind, ErrorKind::kLimit);
    WriteOptions write_options;
    Result<void> written =
        co_await queue->write(GuestOffset(0), ConstBuffers(parts.data(), 65), write_options)
            .result();
    EXPECT_EQ(error_of(std::move(written)).kind, ErrorKind::kLimit);
    ZeroOptions zero_options;
    co_await queue->write_zeroes(GuestRange(GuestOffset(0), options.size), zero_options);
    queue.reset();
    co_await device.close();
  };
  EXPECT_TRUE(world.run(root).ok());
}

// --- the failure that sticks ---------------------------------------------------------------------

TEST_F(DeviceQueueTest, AFailedReadOrWriteIsReportedOnceAndNoMore) {
  auto body = [&](DeviceQueue& queue) -> Task<void> {
    faults.errno_value = ENOSPC;
    faults.only = SimOperation::kWrite;
    faults.requests = 0;
    faults.fail_at = 1;
    std::vector<std::byte> memory(512);
    WriteOptions options;
    co_await queue.write(GuestOffset(0), ConstBuffers(Bytes(memory)), options);
    Result<void> failed =
        co_await queue.write(GuestOffset(512), ConstBuffers(Bytes(memory)), options).result();
    Error error = error_of(std::move(failed));
    EXPECT_EQ(error.errno_value, ENOSPC);
    EXPECT_EQ(error.node, kNodeId);
    EXPECT_EQ(error.offset, 512u);
    EXPECT_EQ(queue.counters().failures, 1u);
    EXPECT_FALSE(queue.node().is_broken());
    co_await queue.write(GuestOffset(512), ConstBuffers(Bytes(memory)), options);
    co_await queue.flush();
  };
  EXPECT_TRUE(with_queue(body).ok());
}

Task<void> expect_broken(DeviceNode& device, Shard& shard) {
  std::unique_ptr<DeviceQueue> queue = co_await device.open_queue(shard);
  EXPECT_TRUE(device.is_broken());
  for (int i = 0; i < 2; ++i) {
    Result<void> flushed = co_await queue->flush().result();
    EXPECT_EQ(error_of(std::move(flushed)).errno_value, EIO);
  }
  std::vector<Error> errors = co_await try_all(*queue, 0, 512);
  EXPECT_EQ(errors.size(), 3u) << "reads and block status still work";
  for (const Error& error : errors) EXPECT_EQ(error.errno_value, EIO);
}

TEST_F(DeviceQueueTest, AFailedFlushSticksOnEveryQueueOfTheNode) {
  auto root = [&](Shard& shard) -> Task<void> {
    std::shared_ptr<DeviceNode> device = make_device();
    std::unique_ptr<DeviceQueue> queue = co_await device->open_queue(shard);
    faults.requests = 0;
    faults.fail_at = 0;
    faults.only = SimOperation::kFlush;
    Result<void> flushed = co_await queue->flush().result();
    EXPECT_EQ(error_of(std::move(flushed)).errno_value, EIO);
    Shard& other = world.shard(1);
    auto there = [&]() { return expect_broken(*device, other); };
    co_await other.call(there);
    co_await expect_broken(*device, shard);
    EXPECT_EQ(faults.requests, 1u) << "no flush was tried again";
    queue.reset();
    co_await device->close();
  };
  EXPECT_TRUE(world.run(root).ok());
}

// --- closing -------------------------------------------------------------------------------------

// A format that notes its closing.
class NotingFormat final : public FormatNode {
 public:
  NotingFormat(std::string& log, char name, int close_errno = 0)
      : log_(log), name_(name), close_errno_(close_errno) {}
  const char* driver() const override { return "noting"; }
  const FormatLimits& limits() const override { return limits_; }
  ByteCount size() const override { return ByteCount(0); }
  Task<std::unique_ptr<FormatQueue>> open_queue(Shard&) override {
    UNREACHABLE("only closed in this test");
  }
  Task<void> close() override {
    log_ += name_;
    if (close_errno_ != 0) co_await fail(Error::from_errno(close_errno_, "close"));
  }

 private:
  std::string& log_;
  char name_;
  int close_errno_;
  FormatLimits limits_;
};

std::shared_ptr<DeviceNode> noting(std::string& log, char name, std::shared_ptr<DeviceNode> backing,
                                   int close_errno = 0) {
  return std::make_shared<DeviceNode>(std::string(1, name), 1,
                                      std::make_unique<NotingFormat>(log, name, close_errno),
                                      std::move(backing));
}

TEST_F(DeviceQueueTest, AChainIsClosedFromTheTopAndSharedImagesByTheirLastUser) {
  std::string log;
  auto base = noting(log, 'c', nullptr);
  auto shared = noting(log, 'b', std::move(base));
  auto first = noting(log, '1', shared);
  auto second = noting(log, '2', std::move(shared));
  auto root = [&](Shard&) -> Task<void> {
    co_await first->close();
    EXPECT_EQ(log, "1") << "the second one still uses what is below";
    co_await second->close();
    EXPECT_EQ(log, "12bc");
  };
  EXPECT_TRUE(world.run(root).ok());
}

TEST_F(DeviceQueueTest, AllAreClosedThoughOneFailsAndTheFirstErrorCounts) {
  std::string log;
  auto base = noting(log, 'c', nullptr, ENOSPC);
  auto middle = noting(log, 'b', std::move(base), EIO);
  auto top = noting(log, 'a', std::move(middle));
  auto root = [&](Shard&) -> Task<void> { co_await top->close(); };
  EXPECT_EQ(world.run(root).error().errno_value, EIO);
  EXPECT_EQ(log, "abc");
}

}  // namespace
}  // namespace ringdisk
