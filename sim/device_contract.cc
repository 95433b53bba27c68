// SPDX-License-Identifier: Apache-2.0
// The clauses of the device contract. Each is a task on shard 0 of a world with three shards.
#include "sim/device_contract.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "async/scope.h"
#include "base/limits.h"
#include "runtime/shard.h"
#include "sim/model_run.h"
#include "sim/registered_test.h"
#include "sim/scattered_buffer.h"
#include "sim/sim_world.h"

namespace ringdisk::sim {
namespace {

constexpr uint64_t kDiskBytes = kContractDiskBytes;
constexpr uint64_t kSeeds = 5;

// One run of one clause.
struct Run {
  SimWorld& world;
  const ImageFormat& format;
  SimDisk& disk;
  SimFaults& faults;
  CrashLog& log;
  ModelDisk model;
  Random random;

  uint64_t alignment() const { return disk.options().memory_alignment; }
};

GuestRange range_of(uint64_t offset, uint64_t length) {
  return {GuestOffset(offset), ByteCount(length)};
}

// Requests that keep the model, and reads that are compared with it.
Task<void> write(Run& run, DeviceQueue& queue, GuestRange range, bool fua = false) {
  std::vector<std::byte> bytes(range.length.value());
  run.model.fill(range.offset.value(), bytes);
  ScatteredBuffer source(bytes, run.alignment(), run.random);
  ConstBuffers buffers = source.readable();
  WriteOptions options;
  options.fua = fua;
  uint64_t change = run.model.begin_write(range.offset.value(), bytes, fua, run.log.events());
  Result<void> done = co_await queue.write(range.offset, buffers, options).result();
  run.model.end(change, done.ok(), run.log.events());
  co_await std::move(done);
}
Task<void> zero(Run& run, DeviceQueue& queue, GuestRange range, bool may_unmap) {
  ZeroOptions options;
  options.may_unmap = may_unmap;
  uint64_t change =
      run.model.begin_zero(range.offset.value(), range.length.value(), false, run.log.events());
  Result<void> done = co_await queue.write_zeroes(range, options).result();
  run.model.end(change, done.ok(), run.log.events());
  co_await std::move(done);
}
Task<void> discard(Run& run, DeviceQueue& queue, GuestRange range) {
  uint64_t change =
      run.model.begin_discard(range.offset.value(), range.length.value(), run.log.events());
  Result<void> done = co_await queue.discard(range).result();
  run.model.end(change, done.ok(), run.log.events());
  co_await std::move(done);
}
Task<void> check(Run& run, DeviceQueue& queue, GuestRange range) {
  std::vector<std::byte> bytes(range.length.value(), std::byte{0x5a});
  ScatteredBuffer target(bytes, run.alignment(), run.random);
  MutableBuffers buffers = target.writable();
  co_await queue.read(range.offset, buffers);
  target.gather(bytes);
  std::optional<std::string> wrong = run.model.check(range.offset.value(), bytes);
  EXPECT_FALSE(wrong) << "read of " << range.length.value() << " at " << range.offset.value()
                      << ": " << wrong.value_or("");
}
Task<void> check_all(Run& run, DeviceQueue& queue) {
  constexpr uint64_t kPiece = 1 << 20;
  for (uint64_t at = 0; at < kDiskBytes; at += kPiece) {
    co_await check(run, queue, range_of(at, std::min(kPiece, kDiskBytes - at)));
  }
}

template <class T>
void expect_error(const Result<T>& result, ErrorKind kind, const char* what) {
  EXPECT_FALSE(result.ok()) << what << " was accepted";
  if (result.ok()) return;
  EXPECT_EQ(name_of(result.error().kind), name_of(kind)) << what;
  EXPECT_NE(result.error().errno_value, 0) << what;
}

// --- clauses -----------------------------------------------------------------------------------

Task<void> new_disk_is_empty(Run& run, DeviceNode&, DeviceQueue& queue) {
  EXPECT_EQ(queue.node().size().value(), kDiskBytes);
  co_await check_all(run, queue);
}

Task<void> reads_back_what_was_written(Run& run, DeviceNode&, DeviceQueue& queue) {
  constexpr uint64_t kOffsets[] = {0, 1, 511, 512, 4095, 65536, 65536 + 100, 200'000, 1 << 20};
  constexpr uint64_t kLengths[] = {1, 511, 512, 513, 4096, 65536, 65537, 300'000};
  for (uint64_t offset : kOffsets) {
    for (uint64_t length : kLengths) {
      co_await write(run, queue, range_of(offset, length));
      co_await check(run, queue, range_of(offset, length));
    }
  }
  co_await check_all(run, queue);
}

Task<void> works_up_to_the_last_byte(Run& run, DeviceNode&, DeviceQueue& queue) {
  co_await write(run, queue, range_of(kDiskBytes - 1, 1));
  co_await write(run, queue, range_of(kDiskBytes - 70'000, 69'000));
  co_await zero(run, queue, range_of(kDiskBytes - 700, 700), true);
  co_await write(run, queue, range_of(kDiskBytes - 10, 10));
  co_await discard(run, queue, range_of(kDiskBytes - 4096, 4096));
  co_await check_all(run, queue);
}

Task<void> takes_large_requests(Run& run, DeviceNode&, DeviceQueue& queue) {
  co_await write(run, queue, range_of(0, kDiskBytes));
  co_await check(run, queue, range_of(0, kDiskBytes));
  co_await zero(run, queue, range_of(0, kDiskBytes), true);
  co_await check_all(run, queue);
}

Task<void> zeroes_read_as_zeros(Run& run, DeviceNode&, DeviceQueue& queue) {
  co_await write(run, queue, range_of(0, 1 << 20));
  for (uint64_t i = 0; i < 30; ++i) {
    uint64_t offset = run.random.below(1 << 20);
    co_await zero(run, queue, range_of(offset, 1 + run.random.below(100'000)), i % 2 == 0);
    co_await write(run, queue, range_of(run.random.below(1 << 20), 1 + run.random.below(3000)));
  }
  co_await check_all(run, queue);
}

// What is refused as not fast has changed nothing: the model does not hear of it.
Task<void> zero_fast(Run& run, DeviceQueue& queue, GuestRange range) {
  ZeroOptions options;
  options.fast_only = true;
  Result<void> done = co_await queue.write_zeroes(range, options).result();
  if (!done.ok()) {
    expect_error(done, ErrorKind::kUnsupported, "fast zeroes");
    co_return;
  }
  uint64_t change =
      run.model.begin_zero(range.offset.value(), range.length.value(), false, run.log.events());
  run.model.end(change, true, run.log.events());
}
Task<void> fast_zeroes_are_zeros_or_refused(Run& run, DeviceNode&, DeviceQueue& queue) {
  co_await write(run, queue, range_of(0, kDiskBytes));
  co_await zero_fast(run, queue, range_of(1000, 200'000));
  co_await zero_fast(run, queue, range_of(2 << 20, 65'536));
  co_await zero_fast(run, queue, range_of(300'100, 77));
  co_await zero_fast(run, queue, range_of(kDiskBytes - 5000, 5000));
  co_await check_all(run, queue);
}

Task<void> discards_leave_zeros_or_what_was_there(Run& run, DeviceNode&, DeviceQueue& queue) {
  co_await write(run, queue, range_of(0, 1 << 20));
  for (uint64_t i = 0; i < 20; ++i) {
    uint64_t offset = run.random.below(1 << 20);
    co_await discard(run, queue, range_of(offset, 1 + run.random.below(200'000)));
    co_await check(run, queue, range_of(0, 1 << 20));
    co_await write(run, queue, range_of(run.random.below(1 << 20), 1 + run.random.below(3000)));
  }
  co_await check_all(run, queue);
}

Task<void> refuses_what_lies_past_the_end(Run& run, DeviceNode&, DeviceQueue& queue) {
  constexpr uint64_t kFar = ~uint64_t{0} - 100;
  std::vector<std::byte> bytes(4096, std::byte{1});
  for (uint64_t offset : {kDiskBytes, kDiskBytes - 1, kDiskBytes + 4096, kFar}) {
    GuestOffset at(offset);
    GuestRange range(at, ByteCount(50));
    Result<void> result = co_await queue.read(at, MutableBytes(bytes).first(50)).result();
    expect_error(result, ErrorKind::kInvalid, "a read past the end");
    result = co_await queue.write(at, Bytes(bytes).first(50), WriteOptions()).result();
    expect_error(result, ErrorKind::kInvalid, "a write past the end");
    ZeroOptions zeroes;
    result = co_await queue.write_zeroes(range, zeroes).result();
    expect_error(result, ErrorKind::kInvalid, "zeroes past the end");
    result = co_await queue.discard(range).result();
    expect_error(result, ErrorKind::kInvalid, "a discard past the end");
    Result<BlockStatus> status = co_await queue.block_status(range, 1).result();
    expect_error(status, ErrorKind::kInvalid, "a block status past the end");
  }
  EXPECT_EQ(queue.node().size().value(), kDiskBytes);
  co_await check_all(run, queue);
}

Task<void> refuses_too_large_requests(Run& run, DeviceNode&, DeviceQueue& queue) {
  // One piece of memory many times over: the length alone is what is refused.
  std::vector<std::byte> piece(1 << 20);
  std::vector<iovec> parts(65, iovec{piece.data(), piece.size()});
  MutableBuffers buffers(parts.data(), parts.size());
  Result<void> read = co_await queue.read(GuestOffset(0), buffers).result();
  EXPECT_FALSE(read.ok());
  co_await check_all(run, queue);
}

Task<void> takes_empty_requests(Run& run, DeviceNode&, DeviceQueue& queue) {
  WriteOptions writes;
  ZeroOptions zeroes;
  for (uint64_t offset : {uint64_t{0}, uint64_t{77}, kDiskBytes}) {
    co_await queue.read(GuestOffset(offset), MutableBuffers());
    co_await queue.write(GuestOffset(offset), ConstBuffers(), writes);
    co_await queue.write_zeroes(range_of(offset, 0), zeroes);
    co_await queue.discard(range_of(offset, 0));
  }
  co_await check_all(run, queue);
}

// Four neighbours within each sector and block, each written by another task of another shard.
Task<void> write_neighbours(Run& run, DeviceNode& node, size_t which) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(Shard::current());
  for (uint64_t at = which * 100; at + 100 <= 60'000; at += 400) {
    co_await write(run, *queue, range_of(at, 100));
  }
}
Task<void> keeps_neighbours_of_several_shards(Run& run, DeviceNode& node, DeviceQueue& queue) {
  auto one = [&run, &node](size_t which) {
    auto there = [&run, &node, which] { return write_neighbours(run, node, which); };
    return run.world.shard(static_cast<uint32_t>(which) % run.world.shard_count()).call(there);
  };
  co_await when_all(4, one);
  co_await check_all(run, queue);
}

Task<void> block_status_covers_and_agrees(Run& run, DeviceNode&, DeviceQueue& queue) {
  co_await write(run, queue, range_of(100'000, 50'000));
  co_await write(run, queue, range_of(700'000, 3));
  co_await zero(run, queue, range_of(110'000, 20'000), true);
  co_await discard(run, queue, range_of(65'536, 65'536));
  co_await check_all(run, queue);  // settles what the discard did
  for (uint64_t at = 0; at < kDiskBytes;) {
    GuestRange rest = range_of(at, kDiskBytes - at);
    BlockStatus status = co_await queue.block_status(rest, ~uint32_t{0});
    EXPECT_GT(status.length.value(), 0u);
    EXPECT_LE(status.length.value(), kDiskBytes - at);
    EXPECT_TRUE(status.zero || status.data || !status.present);
    if (status.length.is_zero()) co_return;
    if (status.zero || !status.present) {
      std::vector<std::byte> zeros(status.length.value());
      std::optional<std::string> wrong = run.model.check(at, zeros);
      EXPECT_FALSE(wrong) << "called zero: " << wrong.value_or("");
    }
    at += status.length.value();
  }
}

Task<void> holds_across_close_and_open(Run& run, DeviceNode&, DeviceQueue& queue) {
  co_await write(run, queue, range_of(12'345, 100'000));
  co_await zero(run, queue, range_of(50'000, 10'000), false);
  co_await write(run, queue, range_of(kDiskBytes - 3000, 3000));
  co_await queue.flush();
}  // the frame around every clause opens again and compares

Task<void> write_elsewhere(Run& run, DeviceNode& node) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(Shard::current());
  co_await write(run, *queue, range_of(5000, 200'000));
  co_await zero(run, *queue, range_of(100'000, 30'000), true);
}
Task<void> look_after_crash(Run& run, uint64_t subset_seed) {
  uint64_t event = run.log.events();
  SimDisk crashed(run.disk, event, subset_seed);
  std::shared_ptr<DeviceNode> node =
      co_await run.format.open(run.world.world(), storage_of(crashed), false);
  std::unique_ptr<DeviceQueue> queue = co_await node->open_queue(Shard::current());
  std::vector<std::byte> bytes(400'000);
  co_await queue->read(GuestOffset(0), MutableBuffers(MutableBytes(bytes)));
  std::optional<std::string> wrong = run.model.check_crashed(event, 0, bytes);
  EXPECT_FALSE(wrong) << wrong.value_or("");
  queue.reset();
  co_await node->close();
}
Task<void> a_flush_covers_other_queues(Run& run, DeviceNode& node, DeviceQueue& queue) {
  auto elsewhere = [&run, &node] { return write_elsewhere(run, node); };
  co_await run.world.shard(1).call(elsewhere);
  uint64_t flush = run.model.begin_flush(run.log.events());
  co_await queue.flush();
  run.model.end_flush(flush, true, run.log.events());
  for (uint64_t subset = 0; subset < 4; ++subset) co_await look_after_crash(run, subset);
}

Task<void> fua_is_durable_by_itself(Run& run, DeviceNode&, DeviceQueue& queue) {
  co_await write(run, queue, range_of(1000, 3000));
  co_await write(run, queue, range_of(70'000, 140'000), true);
  co_await write(run, queue, range_of(300'000, 100), true);
  for (uint64_t subset = 0; subset < 4; ++subset) co_await look_after_crash(run, subset);
}

Task<void> a_failed_flush_is_sticky(Run& run, DeviceNode& node, DeviceQueue& queue) {
  co_await write(run, queue, range_of(1000, 3000));
  run.faults.only = SimOperation::kFlush;
  run.faults.fail_at = run.faults.requests;
  Result<void> result = co_await queue.flush().result();
  expect_error(result, ErrorKind::kIo, "a flush of a failing disk");
  EXPECT_EQ(run.faults.failed, 1u);
  EXPECT_TRUE(node.is_broken());
  std::unique_ptr<DeviceQueue> other = co_await node.open_queue(Shard::current());
  for (DeviceQueue* any : {&queue, other.get()}) {
    result = co_await any->flush().result();
    expect_error(result, ErrorKind::kIo, "a flush after a failed one");
    std::vector<std::byte> bytes(512);
    result = co_await any->write(GuestOffset(0), Bytes(bytes), WriteOptions()).result();
    expect_error(result, ErrorKind::kIo, "a write after a failed flush");
  }
}

Task<void> an_errno_is_kept(Run& run, DeviceNode&, DeviceQueue& queue) {
  co_await write(run, queue, range_of(0, 4096));
  run.faults.only = SimOperation::kWrite;
  run.faults.errno_value = ENOSPC;
  run.faults.fail_at = run.faults.requests;
  run.faults.fail_all_after = true;
  Result<void> result = co_await write(run, queue, range_of(1 << 20, 4096)).result();
  expect_error(result, ErrorKind::kNoSpace, "a write to a full disk");
  if (!result.ok()) {
    EXPECT_EQ(result.error().errno_value, ENOSPC);
  }
  run.faults.fail_at.reset();
  co_await check(run, queue, range_of(0, 4096));
}

// --- the frame around them ---------------------------------------------------------------------

using Clause = Task<void> (*)(Run&, DeviceNode&, DeviceQueue&);

// `breaks`: afterwards the node cannot be closed well, and nothing is promised of its content.
struct NamedClause {
  const char* name;
  Clause clause;
  bool breaks = false;
};

constexpr NamedClause kClauses[] = {
    {"NewDiskIsEmpty", &new_disk_is_empty},
    {"ReadsBackWhatWasWritten", &reads_back_what_was_written},
    {"WorksUpToTheLastByte", &works_up_to_the_last_byte},
    {"TakesLargeRequests", &takes_large_requests},
    {"ZeroesReadAsZeros", &zeroes_read_as_zeros},
    {"FastZeroesAreZerosOrRefused", &fast_zeroes_are_zeros_or_refused},
    {"DiscardsLeaveZerosOrWhatWasThere", &discards_leave_zeros_or_what_was_there},
    {"RefusesWhatLiesPastTheEnd", &refuses_what_lies_past_the_end},
    {"RefusesTooLargeRequests", &refuses_too_large_requests},
    {"TakesEmptyRequests", &takes_empty_requests},
    {"KeepsNeighboursOfSeveralShards", &keeps_neighbours_of_several_shards},
    {"BlockStatusCoversAndAgrees", &block_status_covers_and_agrees},
    {"HoldsAcrossCloseAndOpen", &holds_across_close_and_open},
    {"AFlushCoversOtherQueues", &a_flush_covers_other_queues},
    {"FuaIsDurableByItself", &fua_is_durable_by_itself},
    {"AFailedFlushIsSticky", &a_failed_flush_is_sticky, true},
    {"AnErrnoIsKept", &an_errno_is_kept, true},
};

Task<void> refuse_changes(DeviceQueue& queue) {
  std::vector<std::byte> bytes(512);
  Result<void> result = co_await queue.write(GuestOffset(0), Bytes(bytes), WriteOptions()).result();
  expect_error(result, ErrorKind::kDenied, "a write to a read-only disk");
  ZeroOptions zeroes;
  result = co_await queue.write_zeroes(range_of(0, 512), zeroes).result();
  expect_error(result, ErrorKind::kDenied, "zeroes on a read-only disk");
  result = co_await queue.discard(range_of(0, 512)).result();
  expect_error(result, ErrorKind::kDenied, "a discard on a read-only disk");
  co_await queue.flush();
}

Task<void> run_open(Run& run, const NamedClause& clause, DeviceNode& node) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(Shard::current());
  Result<void> done = co_await clause.clause(run, node, *queue).result();
  queue.reset();
  co_await std::move(done);
}
Task<void> compare_read_only(Run& run, DeviceNode& node) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(Shard::current());
  Result<void> done = co_await check_all(run, *queue).result();
  EXPECT_TRUE(node.is_read_only());
  if (done.ok()) done = co_await refuse_changes(*queue).result();
  queue.reset();
  co_await std::move(done);
}

Task<void> run_clause(Run& run, const NamedClause& clause) {
  const World& world = run.world.world();
  ByteCount size(kDiskBytes);
  co_await create_image(world, run.format, run.disk, size);
  std::shared_ptr<DeviceNode> node = co_await run.format.open(world, storage_of(run.disk), false);
  Result<void> done = co_await run_open(run, clause, *node).result();
  Result<void> closed = co_await node->close().result();
  co_await std::move(done);
  if (clause.breaks) co_return;
  co_await std::move(closed);
  node = co_await run.format.open(world, storage_of(run.disk, true), true);
  done = co_await compare_read_only(run, *node).result();
  co_await node->close();
  co_await std::move(done);
  if (run.format.check) co_await run.format.check(world, storage_of(run.disk));
}

void run_for_seed(const ImageFormat& format, const SimDiskOptions& options,
                  const NamedClause& clause, uint64_t seed) {
  SimWorld world(seed, 3);
  CrashLog log;
  SimFaults faults;
  SimDisk disk(options, world.draw_seed(), &log, &faults);
  Run run{world, format, disk, faults, log, ModelDisk(seed, true, format.initial), Random(seed)};
  run.model.set_discard_unit(format.discard_unit, kDiskBytes);
  auto body = [&run, &clause](Shard&) { return run_clause(run, clause); };
  Result<void> done = world.run(body);
  EXPECT_TRUE(done.ok()) << world.diagnostics().describe(done.error());
}

}  // namespace

bool register_device_contract(const char* name, ImageFormat format, SimDiskOptions disk) {
  if (!disk.grows && disk.size.is_zero()) disk.size = ByteCount(2 * kDiskBytes);
  for (const NamedClause& clause : kClauses) {
    auto body = [format, disk, &clause] {
      for_each_seed(kSeeds, [&](uint64_t seed) { run_for_seed(format, disk, clause, seed); });
    };
    register_test("DeviceContract", std::string(clause.name) + "/" + name, body);
  }
  return true;
}

}  // namespace ringdisk::sim
