// SPDX-License-Identifier: Apache-2.0
// What the life of a cached 4 KiB read costs (ARCHITECTURE.md tells it), as
// numbers that must not grow: coroutine frames, allocations, system calls (sends and receives of
// the stream), pieces of memory, shards.
//
// The session runs over a stream and a disk that allocate nothing themselves, so that every
// allocation seen is the session's or the block layer's.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <string>

#include "nbd/server_session.h"
#include "nbd/test_client.h"
#include "nodes/mem.h"
#include "nodes/raw.h"
#include "sim/sim_world.h"

namespace {
// Counts what the whole test program asks of the system's allocator.
uint64_t operator_new_calls = 0;

[[maybe_unused]] void* counted(size_t bytes) {
  ++operator_new_calls;
  void* memory = malloc(bytes);
  if (!memory) abort();
  return memory;
}
}  // namespace

// The thread sanitizer brings its own, and does not let them be replaced: there nothing is counted
// here, and every other preset counts.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RINGDISK_TSAN 1
#endif
#endif
#ifndef RINGDISK_TSAN
void* operator new(size_t bytes) { return counted(bytes); }
void* operator new[](size_t bytes) { return counted(bytes); }
void operator delete(void* memory) noexcept { free(memory); }
void operator delete[](void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }
void operator delete[](void* memory, size_t) noexcept { free(memory); }
#endif

namespace ringdisk::nbd {
namespace {

constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint32_t kDepth = 64;

// Gives what it is fed, and counts what it is told.
class ScriptedStream final : public Stream {
 public:
  Task<size_t> read_some(MutableBytes target, CancelToken token) override {
    if (fed_.empty()) {
      fed_event_.reset();
      Result<void> fed = co_await fed_event_.wait_or_cancel(token);
      co_await std::move(fed);
    }
    size_t bytes = std::min(fed_.size(), target.size());
    copy_bytes(fed_.first(bytes), target.first(bytes));
    fed_ = fed_.subspan(bytes);
    ++receives;
    co_return bytes;
  }
  Task<void> write_all(ConstBuffers source, CancelToken) override {
    ++sends;
    bytes_sent += source.size();
    source.for_each([this](Bytes piece) {
      ++pieces_sent;
      // why: the address shows whether the payload is still the buffer the device filled
      bool is_pool_memory = reinterpret_cast<uintptr_t>(piece.data()) % kBufferAlignment == 0;
      payload_pieces += piece.size() == 4096 && is_pool_memory;
    });
    if (bytes_sent >= bytes_awaited) answered_.set();
    co_return;
  }
  void shut_down() override {}

  void feed(Bytes bytes) {
    fed_ = bytes;
    fed_event_.set();
  }
  Event& answered_after(uint64_t bytes) {
    answered_.reset();
    bytes_awaited = bytes_sent + bytes;
    return answered_;
  }

  uint64_t receives = 0, sends = 0, bytes_sent = 0, bytes_awaited = 0;
  uint64_t pieces_sent = 0, payload_pieces = 0;

 private:
  Bytes fed_;
  Event fed_event_;
  Event answered_;
};

struct Counts {
  uint64_t operator_new = 0, frames_system = 0, buffers_system = 0;
  uint64_t sends = 0, receives = 0, pieces = 0, payload_pieces = 0;
  uint64_t frames_at_once = 0, frames_each = 0;
};

struct Budget {
  Shard& shard;
  ScriptedStream& stream;

  // One batch of `count` reads or writes, answered completely.
  Task<void> run_batch(const std::string& requests, uint64_t reply_bytes) {
    Event& answered = stream.answered_after(reply_bytes);
    stream.feed(as_bytes(requests));
    co_await answered.wait();
  }
  Task<void> measure(const std::string& requests, uint64_t reply_bytes, Counts& counts) {
    for (int i = 0; i < 5; ++i) co_await run_batch(requests, reply_bytes);  // pools fill up
    // Until the session waits for more: its own frames are not counted.
    Result<void> settled = co_await shard.sleep(std::chrono::milliseconds(1));
    co_await std::move(settled);
    FramePool& frames = shard.executor().frames();
    Counts before = now();
    uint64_t live = frames.live();
    uint64_t allocated = frames.allocated_total();
    frames.restart_live_max();
    co_await run_batch(requests, reply_bytes);
    Counts after = now();
    counts.operator_new = after.operator_new - before.operator_new;
    counts.frames_system = after.frames_system - before.frames_system;
    counts.buffers_system = after.buffers_system - before.buffers_system;
    counts.sends = after.sends - before.sends;
    counts.receives = after.receives - before.receives;
    counts.pieces = after.pieces - before.pieces;
    counts.payload_pieces = after.payload_pieces - before.payload_pieces;
    counts.frames_at_once = frames.live_max() - live;
    counts.frames_each = (frames.allocated_total() - allocated) / kDepth;
  }
  Counts now() {
    Counts counts;
    counts.operator_new = operator_new_calls;
    counts.frames_system = shard.executor().frames().system_allocations();
    counts.buffers_system = shard.buffers().system_allocations();
    counts.sends = stream.sends;
    counts.receives = stream.receives;
    counts.pieces = stream.pieces_sent;
    counts.payload_pieces = stream.payload_pieces;
    return counts;
  }
};

Task<void> measure_session(Scope& scope, ServerSession& session, Budget& budget,
                           const std::string& requests, uint64_t reply_bytes, Counts& counts) {
  CancelSource stop;
  scope.spawn(session.run(stop.token()));
  co_await budget.measure(requests, reply_bytes, counts);
  stop.cancel();
}

struct Case {
  std::string requests;
  uint64_t reply_bytes = 0;
  bool structured = false;
  Counts counts;
};

Task<void> run_case(Shard& shard, const World& world, Case& measured) {
  auto storage =
      std::make_unique<SharedStorage>(std::make_unique<MemNode>("mem", 1, ByteCount(kDiskBytes)));
  auto raw = std::make_unique<RawNode>(std::move(storage), ByteCount(0), ByteCount(kDiskBytes));
  ExportOptions options;
  options.device = std::make_shared<DeviceNode>("disk", 2, std::move(raw), nullptr);
  Export served(options, world.shards.size());
  Negotiated negotiated;
  negotiated.served = &served;
  negotiated.structured_replies = measured.structured;
  ScriptedStream stream;
  {
    ReceiveBuffer input(stream, shard.buffers());
    HandOverLimits hand_over;
    ServerSession session(world, stream, input, negotiated, hand_over);
    Budget budget{shard, stream};
    auto body = [&session, &budget, &measured](Scope& scope) {
      return measure_session(scope, session, budget, measured.requests, measured.reply_bytes,
                             measured.counts);
    };
    co_await with_scope(body);
  }
  served.close_queue();
  co_await options.device->close();
}

Counts measure(Case measured) {
  sim::SimWorld world(1, 2);
  auto root = [&world, &measured](Shard& shard) {
    return run_case(shard, world.world(), measured);
  };
  Result<void> done = world.run(root);
  EXPECT_TRUE(done.ok());
  EXPECT_EQ(world.shard(1).executor().frames().allocated_total(), 0u) << "another shard was asked";
  return measured.counts;
}

std::string requests(uint16_t type, const std::string& payload) {
  std::string bytes;
  for (uint64_t i = 0; i < kDepth; ++i) {
    bytes += be32(0x25609513) + be16(0) + be16(type) + be64(i) + be64(i * 4096) + be32(4096);
    bytes += payload;
  }
  return bytes;
}

void expect_lean(const Counts& counts) {
  EXPECT_EQ(counts.operator_new, 0u);
  EXPECT_EQ(counts.frames_system, 0u);
  EXPECT_EQ(counts.buffers_system, 0u);
  // perform, the funnel, access, the storage's driver
  EXPECT_LE(counts.frames_each, 4u);
}

TEST(BudgetTest, CachedReadsOf4KiB) {
  Case reads;
  reads.requests = requests(0, "");
  reads.reply_bytes = kDepth * (16 + 4096);
  Counts counts = measure(reads);
  expect_lean(counts);
  EXPECT_LE(counts.frames_at_once, 4u);
  EXPECT_EQ(counts.receives, 1u);
  EXPECT_EQ(counts.sends, 1u) << "replies of one batch leave in one call";
  EXPECT_EQ(counts.pieces, 2 * kDepth);
  EXPECT_EQ(counts.payload_pieces, kDepth) << "the payload is sent from where the device put it";
}

TEST(BudgetTest, CachedStructuredReadsOf4KiB) {
  Case reads;
  reads.requests = requests(0, "");
  reads.reply_bytes = kDepth * (28 + 4096);
  reads.structured = true;
  Counts counts = measure(reads);
  expect_lean(counts);
  EXPECT_LE(counts.frames_at_once, 4u);
  EXPECT_EQ(counts.sends, 1u);
  EXPECT_EQ(counts.payload_pieces, kDepth);
}

TEST(BudgetTest, WritesOf4KiB) {
  Case writes;
  writes.requests = requests(1, std::string(4096, 'w'));
  writes.reply_bytes = kDepth * 16;
  Counts counts = measure(writes);
  expect_lean(counts);
  // 64 requests with their payload are a little more than the receive buffer holds.
  EXPECT_LE(counts.receives, 3u);
  EXPECT_LE(counts.sends, 3u);
}

}  // namespace
}  // namespace ringdisk::nbd
