// SPDX-License-Identifier: Apache-2.0
// Drawing requests, performing them, comparing with the model.
#include "sim/workload.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "async/scope.h"
#include "runtime/shard.h"
#include "sim/scattered_buffer.h"

namespace ringdisk::sim {

// The whole cluster that `at` lies in, as far as the disk goes.
static GuestRange cluster_at(const DeviceNode& node, GuestOffset at) {
  const uint64_t cluster = node.format().limits().cluster_size.value();
  const GuestRange whole(at.align_down(cluster), ByteCount(cluster));
  return whole.intersection(GuestRange(GuestOffset(0), node.size()));
}

// A range that is under way; gives it back when it goes.
class Workload::Claim {
 public:
  Claim(std::vector<Busy>& busy, const GuestRange& range)
      : busy_(busy), begin_(range.offset.value()), end_(range.end().value()) {
    busy_.push_back({begin_, end_});
  }
  ~Claim() {
    for (Busy& one : busy_) {
      if (one.begin != begin_ || one.end != end_) continue;
      one = busy_.back();
      busy_.pop_back();
      return;
    }
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

 private:
  std::vector<Busy>& busy_;
  const uint64_t begin_;
  const uint64_t end_;
};

Task<void> Workload::run(const World& world, DeviceNode& node) {
  auto one = [this, &world, &node](size_t index) {
    Shard& shard = *world.shards[index];
    auto there = [this, &shard, &node] { return run_shard(shard, node); };
    return shard.call(there);
  };
  co_await when_all(world.shards.size(), one);
}

Task<void> Workload::run_shard(Shard& shard, DeviceNode& node) {
  auto one = [this, &shard, &node](size_t) { return run_queue(shard, node); };
  co_await when_all(options_.queues_per_shard, one);
}

Task<void> Workload::run_queue(Shard& shard, DeviceNode& node) {
  Result<std::unique_ptr<DeviceQueue>> opened = co_await node.open_queue(shard).result();
  if (!opened.ok()) {
    Result<void> failed = opened.error();
    judge(failed, "open queue", GuestRange());
    co_return;
  }
  DeviceQueue& queue = *opened.value();
  auto one = [this, &queue](size_t) { return run_worker(queue); };
  co_await when_all(options_.in_flight_per_queue, one);
}

Task<void> Workload::run_worker(DeviceQueue& queue) {
  while (begun_ < options_.operations && !stopped_) {
    ++begun_;
    co_await run_one(queue);
  }
}

Task<void> Workload::run_one(DeviceQueue& queue) {
  uint64_t drawn = random_.below(100);
  if (drawn < options_.flushes) {
    co_await flush(queue);
    co_return;
  }
  drawn -= options_.flushes;
  GuestRange range = draw_range(queue.node().size().value());
  const bool is_compressed = drawn >= 100 - options_.flushes - options_.compressed;
  if (is_compressed) range = cluster_at(queue.node(), range.offset);
  if (!is_free(range)) co_return;
  Claim claim(busy_, range);
  if (is_compressed) {
    co_await write_compressed(queue, range);
  } else {
    co_await perform(queue, range, drawn);
  }
}

Task<void> Workload::perform(DeviceQueue& queue, GuestRange range, uint64_t drawn) {
  if (drawn < options_.writes) {
    co_await write(queue, range);
  } else if (drawn < options_.writes + options_.zeroes) {
    co_await write_zeroes(queue, range);
  } else if (drawn < options_.writes + options_.zeroes + options_.discards) {
    co_await discard(queue, range);
  } else if (drawn < options_.writes + options_.zeroes + options_.discards + options_.statuses) {
    co_await block_status(queue, range);
  } else {
    co_await read(queue, range);
  }
}

// Half of the ranges lie close together, many at boundaries, some at the end of the disk.
GuestRange Workload::draw_range(uint64_t disk_bytes) {
  constexpr uint64_t kGrains[] = {1, 512, 4096, 65536};
  uint64_t grain = std::max(kGrains[random_.below(4)], options_.alignment);
  uint64_t within = random_.chance(50) ? std::min<uint64_t>(disk_bytes, 256 * 1024) : disk_bytes;
  uint64_t offset = random_.below(within) / grain * grain;
  uint64_t length_max = random_.chance(30) ? options_.length_max : 8192;
  uint64_t length = 1 + random_.below(length_max);
  grain = random_.chance(50) ? grain : options_.alignment;
  length = (length + grain - 1) / grain * grain;
  if (random_.chance(3)) offset = disk_bytes - std::min(length, disk_bytes);
  offset = offset / options_.alignment * options_.alignment;
  length = std::min(length, disk_bytes - offset);
  return {GuestOffset(offset), ByteCount(length)};
}

bool Workload::is_free(const GuestRange& range) const {
  return std::none_of(busy_.begin(), busy_.end(), [&range](const Busy& other) {
    return other.begin < range.end().value() && range.offset.value() < other.end;
  });
}

void Workload::judge(const Result<void>& result, const char* operation, GuestRange range) {
  if (result.ok()) return;
  if (errors_++ == 0) first_error_ = result.error();
  EXPECT_NE(result.error().errno_value, 0) << "an error lost its errno";
  if (options_.errors_allowed) return;
  stopped_ = true;
  ADD_FAILURE() << operation << " of " << range.length.value() << " bytes at "
                << range.offset.value() << " failed: " << name_of(result.error().kind) << ", errno "
                << result.error().errno_value << " in " << result.error().operation;
}

Task<void> Workload::write(DeviceQueue& queue, GuestRange range) {
  std::vector<std::byte> bytes(range.length.value());
  model_.fill(range.offset.value(), bytes);
  if (options_.zero_runs != 0 && random_.chance(options_.zero_runs)) draw_zero_runs(bytes);
  ScatteredBuffer source(bytes, options_.alignment, random_);
  WriteOptions options;
  options.fua = random_.chance(10);
  uint64_t change = model_.begin_write(range.offset.value(), bytes, options.fua, event());
  ConstBuffers buffers = source.readable();
  Result<void> done = co_await queue.write(range.offset, buffers, options).result();
  model_.end(change, done.ok(), event());
  judge(done, "write", range);
}

// Some of it, or all.
void Workload::draw_zero_runs(MutableBytes bytes) {
  if (random_.chance(30)) {
    fill_zero(bytes);
    return;
  }
  for (int i = 0; i < 3; ++i) {
    const uint64_t at = random_.below(bytes.size());
    const uint64_t length = 1 + random_.below(bytes.size() - at);
    fill_zero(bytes.subspan(at, length));
  }
}

// Most clusters shrink: the stamp at the head of each sector fills it. Some do not.
Task<void> Workload::write_compressed(DeviceQueue& queue, GuestRange range) {
  constexpr size_t kStampBytes = 64;
  std::vector<std::byte> bytes(range.length.value());
  model_.fill(range.offset.value(), bytes);
  const bool shrinks = random_.chance(85);
  for (size_t i = 0; shrinks && i < bytes.size(); ++i) {
    if (i % kSectorBytes >= kStampBytes) bytes[i] = bytes[i - kStampBytes];
  }
  CompressOptions options;
  options.level = static_cast<uint32_t>(random_.below(4));
  uint64_t change = model_.begin_write(range.offset.value(), bytes, false, event());
  Result<void> done = co_await queue.write_compressed(range.offset, bytes, options).result();
  model_.end(change, done.ok(), event());
  judge(done, "write compressed", range);
}

Task<void> Workload::write_zeroes(DeviceQueue& queue, GuestRange range) {
  ZeroOptions options;
  options.may_unmap = random_.chance(70);
  options.fast_only = random_.chance(10);
  options.fua = random_.chance(10);
  uint64_t change =
      model_.begin_zero(range.offset.value(), range.length.value(), options.fua, event());
  Result<void> done = co_await queue.write_zeroes(range, options).result();
  model_.end(change, done.ok(), event());
  bool refused = !done.ok() && options.fast_only && done.error().kind == ErrorKind::kUnsupported;
  if (!refused) judge(done, "write zeroes", range);
}

Task<void> Workload::discard(DeviceQueue& queue, GuestRange range) {
  uint64_t change = model_.begin_discard(range.offset.value(), range.length.value(), event());
  Result<void> done = co_await queue.discard(range).result();
  model_.end(change, done.ok(), event());
  judge(done, "discard", range);
}

Task<void> Workload::flush(DeviceQueue& queue) {
  uint64_t flush = model_.begin_flush(event());
  Result<void> done = co_await queue.flush().result();
  model_.end_flush(flush, done.ok(), event());
  judge(done, "flush", GuestRange());
}

Task<void> Workload::read(DeviceQueue& queue, GuestRange range) {
  std::vector<std::byte> bytes(range.length.value(), std::byte{0xa5});
  ScatteredBuffer target(bytes, options_.alignment, random_);
  MutableBuffers buffers = target.writable();
  Result<void> done = co_await queue.read(range.offset, buffers).result();
  judge(done, "read", range);
  if (!done.ok()) co_return;
  target.gather(bytes);
  std::optional<std::string> wrong = model_.check(range.offset.value(), bytes);
  if (!wrong) co_return;
  stopped_ = true;
  ADD_FAILURE() << "read of " << range.length.value() << " bytes at " << range.offset.value()
                << ": " << *wrong;
}

// What is said to be zero without being read has to be zero.
Task<void> Workload::block_status(DeviceQueue& queue, GuestRange range) {
  Result<BlockStatus> got = co_await queue.block_status(range, ~uint32_t{0}).result();
  if (!got.ok()) {
    Result<void> failed = got.error();
    judge(failed, "block status", range);
    co_return;
  }
  const BlockStatus& status = got.value();
  EXPECT_GT(status.length.value(), 0u);
  EXPECT_LE(status.length.value(), range.length.value());
  if (!status.zero && status.present) co_return;
  std::vector<std::byte> zeros(status.length.value());
  std::optional<std::string> wrong = model_.check(range.offset.value(), zeros);
  if (!wrong) co_return;
  stopped_ = true;
  ADD_FAILURE() << "block status calls " << status.length.value() << " bytes at "
                << range.offset.value() << " zeros, but: " << *wrong;
}

Task<void> Workload::verify(DeviceNode& node) { co_await verify_all(node, false, 0); }

Task<void> Workload::verify_crashed(DeviceNode& node, uint64_t event) {
  co_await verify_all(node, true, event);
}

Task<void> Workload::verify_all(DeviceNode& node, bool crashed, uint64_t event) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(Shard::current());
  Result<void> done = co_await verify_through(*queue, crashed, event).result();
  queue.reset();
  co_await std::move(done);
}

Task<void> Workload::verify_through(DeviceQueue& queue, bool crashed, uint64_t event) {
  constexpr uint64_t kRunSectors = 512;
  uint64_t disk_bytes = queue.node().size().value();
  std::vector<uint64_t> touched = model_.touched_sectors();
  for (size_t first = 0; first < touched.size() && !stopped_;) {
    size_t last = first;
    while (last + 1 < touched.size() && touched[last + 1] == touched[last] + 1 &&
           last - first + 1 < kRunSectors) {
      ++last;
    }
    uint64_t offset = touched[first] * kSectorBytes;
    if (offset >= disk_bytes) break;  // the disk was not that large yet
    uint64_t end = std::min((touched[last] + 1) * kSectorBytes, disk_bytes);
    co_await verify_range(queue, offset, end - offset, crashed, event);
    first = last + 1;
  }
  for (int i = 0; i < 4 && !stopped_; ++i) {
    uint64_t offset = random_.below(disk_bytes) / kSectorBytes * kSectorBytes;
    uint64_t length = std::min<uint64_t>(16 * kSectorBytes, disk_bytes - offset);
    co_await verify_range(queue, offset, length, crashed, event);
  }
}

Task<void> Workload::verify_range(DeviceQueue& queue, uint64_t offset, uint64_t length,
                                  bool crashed, uint64_t event) {
  std::vector<std::byte> bytes(length);
  co_await queue.read(GuestOffset(offset), MutableBuffers(MutableBytes(bytes)));
  std::optional<std::string> wrong;
  if (crashed) {
    wrong = model_.check_crashed(event, offset, bytes);
  } else {
    wrong = model_.check(offset, bytes);
  }
  if (!wrong) co_return;
  stopped_ = true;
  ADD_FAILURE() << (crashed ? "after the crash: " : "") << *wrong;
}

}  // namespace ringdisk::sim
