// SPDX-License-Identifier: Apache-2.0
// Lanes of a bench: on each shard a queue, and as many workers as that shard's part of the depth,
// each with a buffer.
#include "jobs/bench.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "async/on_cancel.h"
#include "async/scope.h"
#include "base/check.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

// Requests of one worker that end at once between two turns of its shard.
constexpr uint64_t kRequestsPerTurn = 64;

}  // namespace

// Lives on its shard.
class BenchLane {
 public:
  static Task<void> start(BenchJob& job, Shard& shard, uint32_t depth) {
    BenchLane lane(job, shard);
    co_await lane.run(depth);
  }

 private:
  BenchLane(BenchJob& job, Shard& shard) : job_(job), shard_(shard) {}

  Task<void> run(uint32_t depth);
  Task<void> work(MutableBytes bytes, uint64_t end);
  Task<void> perform(uint64_t number, MutableBytes bytes);
  void note_start();

  BenchJob& job_;
  Shard& shard_;
  std::vector<Buffer> buffers_;
  std::unique_ptr<DeviceQueue> queue_;
};

void BenchLane::note_start() {
  const auto now = static_cast<uint64_t>(shard_.clock().now().since_start.count());
  uint64_t earliest = job_.began_ns_.load(std::memory_order_relaxed);
  while (now < earliest &&
         !job_.began_ns_.compare_exchange_weak(earliest, now, std::memory_order_relaxed)) {
    continue;
  }
}

Task<void> BenchLane::run(uint32_t depth) {
  const BenchOptions& options = job_.options_;
  queue_ = co_await job_.device_.open_queue(shard_);
  for (uint32_t i = 0; i < depth; ++i) {
    buffers_.push_back(shard_.buffers().take(options.buffer_bytes));
    std::memset(buffers_.back().bytes().data(), static_cast<int>(options.pattern),
                options.buffer_bytes);
  }
  note_start();
  const bool has_rounds = options.flush_interval != 0 && options.drain;
  uint64_t end = has_rounds ? options.count % options.flush_interval : options.count;
  if (end == 0) end = std::min(options.count, options.flush_interval);
  for (;;) {
    auto one = [this, end](size_t index) {
      return work(buffers_[index].first(job_.options_.buffer_bytes), end);
    };
    co_await when_all(buffers_.size(), one);
    if (end == options.count || job_.stopped_.load(std::memory_order_relaxed)) co_return;
    co_await queue_->flush();
    end += options.flush_interval;
  }
}

Task<void> BenchLane::work(MutableBytes bytes, uint64_t end) {
  for (uint64_t done = 1;; ++done) {
    const uint64_t number = job_.draw(end);
    if (number == end) co_return;
    Result<void> performed = co_await perform(number, bytes).result();
    if (!performed.ok()) job_.stopped_.store(true, std::memory_order_relaxed);
    co_await std::move(performed);
    if (done % kRequestsPerTurn == 0) co_await NextTurn(shard_);
  }
}

Task<void> BenchLane::perform(uint64_t number, MutableBytes bytes) {
  if (!job_.options_.drain && job_.is_flush_due(number)) co_await queue_->flush();
  const GuestOffset at = job_.offset_of(number);
  if (job_.options_.write) {
    co_await queue_->write(at, ConstBuffers(Bytes(bytes)), WriteOptions());
  } else {
    co_await queue_->read(at, MutableBuffers(bytes));
  }
}

BenchJob::BenchJob(const World& world, DeviceNode& device, BenchOptions options)
    : world_(world),
      device_(device),
      options_(options),
      step_bytes_(options.step_bytes == 0 ? options.buffer_bytes : options.step_bytes) {
  CHECK_GT(options.depth, 0u);
  CHECK_GT(options.buffer_bytes, uint64_t{0});
  CHECK_LE(options.buffer_bytes, device.size().value());
  CHECK_LE(options.count, kBenchCountMax);
  CHECK_LE(step_bytes_, kBenchStepMax);
  auto shards = static_cast<uint32_t>(world.shards.size());
  if (options.queues != 0) shards = std::min(shards, options.queues);
  const bool has_rounds = options.flush_interval != 0 && options.drain;
  shards_used_ = has_rounds ? 1 : std::min(shards, options.depth);
}

// A request that would cross the end lies at the beginning instead.
GuestOffset BenchJob::offset_of(uint64_t number) const {
  const uint64_t size = device_.size().value();
  const uint64_t wrapped = (number * step_bytes_ + options_.offset % size) % size;
  return GuestOffset(wrapped > size - options_.buffer_bytes ? 0 : wrapped);
}

uint64_t BenchJob::draw(uint64_t end) {
  uint64_t number = next_.load(std::memory_order_relaxed);
  do {
    if (number >= end || stopped_.load(std::memory_order_relaxed)) return end;
  } while (!next_.compare_exchange_weak(number, number + 1, std::memory_order_relaxed));
  return number;
}

bool BenchJob::is_flush_due(uint64_t number) const {
  return options_.flush_interval != 0 && number != 0 &&
         (options_.count - number) % options_.flush_interval == 0;
}

uint32_t BenchJob::depth_on(uint32_t shard_index) const {
  return options_.depth / shards_used_ + (shard_index < options_.depth % shards_used_ ? 1 : 0);
}

Task<void> BenchJob::run_on(Shard& shard) {
  const uint32_t depth = depth_on(shard.index());
  auto lane_on_shard = [this, &shard, depth] { return BenchLane::start(*this, shard, depth); };
  Result<void> done = co_await shard.call(lane_on_shard).result();
  if (!done.ok()) stopped_.store(true, std::memory_order_relaxed);
  co_await std::move(done);
}

Task<Duration> BenchJob::run(CancelToken cancel) {
  StopOnCancel listener(cancel, stopped_);
  if (cancel.is_cancelled()) co_return Error::of(ErrorKind::kCancelled, "bench");
  auto one = [this](size_t index) { return run_on(*world_.shards[index]); };
  co_await when_all(shards_used_, one);
  if (cancel.is_cancelled()) co_return Error::of(ErrorKind::kCancelled, "bench");
  const auto ended = static_cast<uint64_t>(world_.clock.now().since_start.count());
  co_return Duration(static_cast<int64_t>(ended - began_ns_.load(std::memory_order_relaxed)));
}

}  // namespace ringdisk
