// SPDX-License-Identifier: Apache-2.0
// What the life of a cached 4 KiB read costs (ARCHITECTURE.md tells it), as numbers that must not
// grow: coroutine frames, allocations, locks, requests to the storage, system calls (sends and
// receives of the stream), copies of the payload, shards. For raw, qcow2 and LUKS, over a storage
// that answers at once and over one that suspends.
//
// The session runs over a stream and a storage that allocate nothing themselves, so that every
// allocation seen is the session's, the format's or the block layer's.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>
#include <string>

#include "luks/view.h"
#include "nbd/server_session.h"
#include "nbd/test_client.h"
#include "nodes/mem.h"
#include "nodes/raw.h"
#include "nodes/storage_filter.h"
#include "qcow2/image_fixture_test.h"
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
constexpr size_t kReadRequestBytes = 28;
constexpr uint32_t kDepth = 64;

// Where the newest kDepth pieces of payload lay, for telling whether bytes were copied.
struct Places {
  std::array<const std::byte*, kDepth> newest{};
  uint64_t count = 0;

  void note(const std::byte* place) { newest[count++ % kDepth] = place; }
  std::array<const std::byte*, kDepth> sorted() const {
    std::array<const std::byte*, kDepth> all = newest;
    std::sort(all.begin(), all.end());
    return all;
  }
};

// What a storage was asked to read, and into which memory. With `suspends` a read takes a moment.
struct StorageNotes {
  bool suspends = false;
  uint64_t reads = 0, bytes = 0;
  Places targets;
};

class NotingQueue final : public FilterQueue {
 public:
  NotingQueue(std::unique_ptr<StorageQueue> child, StorageNotes& notes, MemContent& content,
              Shard& shard)
      : FilterQueue(std::move(child)), notes_(notes), content_(content), shard_(shard) {}

  // As many frames as a driver of its own would have: one.
  Task<void> read(HostOffset offset, MutableBuffers target) override {
    ++notes_.reads;
    notes_.bytes += target.size();
    notes_.targets.note(target.single().data());
    if (notes_.suspends) return read_later(offset, target);
    return child().read(offset, target);
  }

 private:
  Task<void> read_later(HostOffset offset, MutableBuffers target) {
    Result<void> slept = co_await shard_.sleep(std::chrono::microseconds(10));
    co_await std::move(slept);
    content_.memory().read(offset, target.single());
  }

  StorageNotes& notes_;
  MemContent& content_;
  Shard& shard_;
};

class NotingNode final : public StorageFilter {
 public:
  NotingNode(std::shared_ptr<MemContent> content, StorageNotes& notes)
      : StorageFilter(
            std::make_unique<SharedStorage>(std::make_unique<MemNode>("mem", 1, content))),
        content_(std::move(content)),
        notes_(notes) {}
  const char* driver() const override { return "noting"; }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override {
    std::unique_ptr<StorageQueue> below = co_await child().open_queue(shard);
    std::unique_ptr<StorageQueue> queue =
        std::make_unique<NotingQueue>(std::move(below), notes_, *content_, shard);
    co_return std::move(queue);
  }

 private:
  const std::shared_ptr<MemContent> content_;
  StorageNotes& notes_;
};

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
      if (piece.size() == 4096) payloads.note(piece.data());
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
  Places payloads;

 private:
  Bytes fed_;
  Event fed_event_;
  Event answered_;
};

struct Counts {
  uint64_t operator_new = 0, frames_system = 0, buffers_system = 0;
  uint64_t sends = 0, receives = 0, pieces = 0, payload_pieces = 0;
  uint64_t frames_at_once = 0, frames_each = 0, locks = 0;
  uint64_t storage_reads = 0, storage_bytes = 0;
  bool sent_from_where_it_was_read = false;
};

struct Budget {
  Shard& shard;
  ScriptedStream& stream;
  StorageNotes& notes;

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
    // As run_batch, without a frame of its own.
    Event& answered = stream.answered_after(reply_bytes);
    stream.feed(as_bytes(requests));
    co_await answered.wait();
    Counts after = now();
    counts.operator_new = after.operator_new - before.operator_new;
    counts.frames_system = after.frames_system - before.frames_system;
    counts.buffers_system = after.buffers_system - before.buffers_system;
    counts.sends = after.sends - before.sends;
    counts.receives = after.receives - before.receives;
    counts.pieces = after.pieces - before.pieces;
    counts.payload_pieces = after.payload_pieces - before.payload_pieces;
    counts.locks = after.locks - before.locks;
    counts.storage_reads = after.storage_reads - before.storage_reads;
    counts.storage_bytes = after.storage_bytes - before.storage_bytes;
    counts.sent_from_where_it_was_read = notes.targets.sorted() == stream.payloads.sorted();
    counts.frames_at_once = frames.live_max() - live;
    counts.frames_each = (frames.allocated_total() - allocated) / requests_in(requests);
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
    counts.locks = shard.executor().locks();
    counts.storage_reads = notes.reads;
    counts.storage_bytes = notes.bytes;
    return counts;
  }
  // Of reads, which have no payload; with one it is an overestimate of which nobody makes use.
  static uint64_t requests_in(const std::string& requests) {
    return std::min<uint64_t>(kDepth, requests.size() / kReadRequestBytes);
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
  bool is_qcow2 = false;
  bool is_luks = false;
  bool suspends = false;
  Counts counts;
};

std::unique_ptr<SharedStorage> noting_storage(std::shared_ptr<MemContent> content,
                                              StorageNotes& notes) {
  return std::make_unique<SharedStorage>(std::make_unique<NotingNode>(std::move(content), notes));
}

// With a view over it that deciphers in place.
std::unique_ptr<SharedStorage> with_cipher(std::unique_ptr<SharedStorage> storage) {
  std::array<std::byte, 64> key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
  luks::LuksViewOptions options;
  options.cipher =
      make_sector_cipher(CipherSpec(), key, kSectorSizeMin, CpuFeatures::detect()).value();
  return std::make_unique<SharedStorage>(
      std::make_unique<luks::LuksView>(std::move(storage), options));
}

// Every byte is written, so that every cluster is allocated and its entry in memory.
Task<void> fill(DeviceNode& device, Shard& shard) {
  std::unique_ptr<DeviceQueue> queue = co_await device.open_queue(shard);
  const std::string bytes(kDiskBytes, 'd');
  const ConstBuffers source(as_bytes(bytes));
  co_await queue->write(GuestOffset(0), source, WriteOptions());
  co_await queue->flush();
}

Task<std::shared_ptr<DeviceNode>> open_disk(Shard& shard, const World& world, const Case& measured,
                                            StorageNotes& notes) {
  std::shared_ptr<DeviceNode> device;
  if (measured.is_qcow2) {
    auto content = std::make_shared<MemContent>();
    std::unique_ptr<SharedStorage> storage = noting_storage(content, notes);
    const qcow2::TestImage image;
    co_await qcow2::create_test_image(image, *storage, ByteCount(kDiskBytes));
    device = co_await qcow2::open_test_image(world, image, nullptr, std::move(storage), false);
  } else {
    auto content = std::make_shared<MemContent>(ByteCount(kDiskBytes));
    std::unique_ptr<SharedStorage> storage = noting_storage(content, notes);
    if (measured.is_luks) storage = with_cipher(std::move(storage));
    auto raw = std::make_unique<RawNode>(std::move(storage), ByteCount(0), ByteCount(kDiskBytes));
    device = std::make_shared<DeviceNode>("disk", 2, std::move(raw), nullptr);
  }
  co_await fill(*device, shard);
  notes.suspends = measured.suspends;
  co_return std::move(device);
}

Task<void> run_case(Shard& shard, const World& world, Case& measured) {
  StorageNotes notes;
  ExportOptions options;
  options.device = co_await open_disk(shard, world, measured, notes);
  Export served(options, world.shards.size());
  Negotiated negotiated;
  negotiated.served = &served;
  negotiated.structured_replies = measured.structured;
  ScriptedStream stream;
  {
    ReceiveBuffer input(stream, shard.buffers());
    HandOverLimits hand_over;
    PayloadBudget payload(limits::kNbdPayloadInFlightMax);
    ServerSession session(world, stream, input, negotiated, hand_over, payload, "client");
    Budget budget{shard, stream, notes};
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

std::string requests(uint16_t type, const std::string& payload, uint64_t count = kDepth) {
  std::string bytes;
  for (uint64_t i = 0; i < count; ++i) {
    bytes += be32(0x25609513) + be16(0) + be16(type) + be64(i) + be64(i * 4096) + be32(4096);
    bytes += payload;
  }
  return bytes;
}

void expect_lean(const Counts& counts) {
  EXPECT_EQ(counts.operator_new, 0u);
  EXPECT_EQ(counts.frames_system, 0u);
  EXPECT_EQ(counts.buffers_system, 0u);
  EXPECT_EQ(counts.locks, 0u);
}

// perform, the funnel, access, the storage's driver; what the session needs besides is shared by
// the whole batch.
constexpr uint64_t kFramesEach = 4;

// One request to the storage for each, and its bytes are sent from where the storage put them.
void expect_direct(const Counts& counts) {
  EXPECT_EQ(counts.storage_reads, kDepth);
  EXPECT_EQ(counts.storage_bytes, kDepth * 4096u);
  EXPECT_EQ(counts.payload_pieces, kDepth);
  EXPECT_TRUE(counts.sent_from_where_it_was_read);
}

Case cached_reads(bool is_qcow2, bool suspends, uint64_t count = kDepth) {
  Case reads;
  reads.requests = requests(0, "", count);
  reads.reply_bytes = count * (16 + 4096);
  reads.is_qcow2 = is_qcow2;
  reads.suspends = suspends;
  return reads;
}

class BudgetOfFormatTest : public ::testing::TestWithParam<bool> {};

TEST_P(BudgetOfFormatTest, CachedReadsOf4KiB) {
  Counts counts = measure(cached_reads(GetParam(), false));
  expect_lean(counts);
  expect_direct(counts);
  EXPECT_LE(counts.frames_each, kFramesEach);
  EXPECT_LE(counts.frames_at_once, kFramesEach);
  EXPECT_EQ(counts.receives, 1u);
  EXPECT_EQ(counts.sends, 1u) << "replies of one batch leave in one call";
  EXPECT_EQ(counts.pieces, 2 * kDepth);
}

TEST_P(BudgetOfFormatTest, AReadThatWaitsForItsStorageHasFourFrames) {
  Counts counts = measure(cached_reads(GetParam(), true, 1));
  expect_lean(counts);
  EXPECT_EQ(counts.frames_at_once, kFramesEach);
  EXPECT_EQ(counts.storage_reads, 1u);
  EXPECT_EQ(counts.sends, 1u);
}

TEST_P(BudgetOfFormatTest, ManyReadsThatWaitHaveNoMoreEach) {
  Counts counts = measure(cached_reads(GetParam(), true));
  expect_lean(counts);
  expect_direct(counts);
  EXPECT_LE(counts.frames_each, kFramesEach);
  EXPECT_EQ(counts.frames_at_once, kFramesEach * kDepth);
  EXPECT_EQ(counts.receives, 1u);
}

INSTANTIATE_TEST_SUITE_P(Formats, BudgetOfFormatTest, ::testing::Bool(),
                         [](const auto& is_qcow2) { return is_qcow2.param ? "qcow2" : "raw"; });

// The view is one frame more; it deciphers where the storage has put the bytes.
TEST(BudgetTest, CachedReadsOverLuksHaveFiveFrames) {
  for (bool suspends : {false, true}) {
    Case reads = cached_reads(false, suspends);
    reads.is_luks = true;
    Counts counts = measure(reads);
    expect_lean(counts);
    expect_direct(counts);
    EXPECT_LE(counts.frames_each, kFramesEach + 1);
    EXPECT_LE(counts.frames_at_once, (kFramesEach + 1) * (suspends ? kDepth : 1));
  }
}

TEST(BudgetTest, CachedStructuredReadsOf4KiB) {
  Case reads;
  reads.requests = requests(0, "");
  reads.reply_bytes = kDepth * (28 + 4096);
  reads.structured = true;
  Counts counts = measure(reads);
  expect_lean(counts);
  EXPECT_LE(counts.frames_each, kFramesEach);
  EXPECT_LE(counts.frames_at_once, kFramesEach);
  EXPECT_EQ(counts.sends, 1u);
  EXPECT_EQ(counts.payload_pieces, kDepth);
}

TEST(BudgetTest, WritesOf4KiB) {
  Case writes;
  writes.requests = requests(1, std::string(4096, 'w'));
  writes.reply_bytes = kDepth * 16;
  Counts counts = measure(writes);
  expect_lean(counts);
  EXPECT_LE(counts.frames_each, kFramesEach);
  // 64 requests with their payload are a little more than the receive buffer holds.
  EXPECT_LE(counts.receives, 3u);
  EXPECT_LE(counts.sends, 3u);
}

}  // namespace
}  // namespace ringdisk::nbd
