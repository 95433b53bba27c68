// SPDX-License-Identifier: Apache-2.0
// Every command with simple and with structured replies, what it does to the disk, and what the
// client is told when it fails.
#include "nbd/server_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "nbd/simulated_server_test.h"

namespace ringdisk::nbd {
namespace {

using Reply = TestClient::Reply;

constexpr uint64_t kDiskBytes = 8 << 20;
constexpr uint16_t kRead = 0, kWrite = 1, kFlush = 3, kTrim = 4, kCache = 5, kWriteZeroes = 6,
                   kBlockStatus = 7;
constexpr uint16_t kNone = 0, kFua = 1, kNoHole = 2, kDf = 4, kReqOne = 8, kFastZero = 16;

// Runs part(bench, client) with a client in transmission.
using ClientPart = Task<void> (*)(TestBench&, TestClient&);

struct ServeOptions {
  bool structured = false;
  bool contexts = true;  // base:allocation is selected, with structured replies
  bool read_only = false;
  bool hand_over = false;  // whatever can be handed over is
  Duration delay{0};
  std::string content;  // of the disk's beginning
};

Task<void> run_client(TestBench& bench, ClientPart part, const ServeOptions& options) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", options.structured, options.contexts);
  co_await part(bench, *client);
  co_await client->disconnect();
  size_t rest = co_await client->drain();
  EXPECT_EQ(rest, 0u);
}

void serve_one(uint64_t seed, ClientPart part, const ServeOptions& options) {
  sim::SimWorld world(seed, 2);
  DelayPlan delay = TestDisk::no_delay();
  delay.longest = options.delay;
  delay.seed = seed;
  TestDisk disk(kDiskBytes, delay);
  if (!options.content.empty()) disk.poke(0, options.content);
  TestSetup setup(world, disk);
  setup.exports[0].read_only = options.read_only;
  if (options.hand_over) setup.options.hand_over = {Duration::zero(), Duration::zero()};
  auto with_client = [&options, part](TestBench& bench) {
    return run_client(bench, part, options);
  };
  Result<void> done = run_with_server(setup, with_client);
  EXPECT_TRUE(done.ok()) << world.diagnostics().describe(done.ok() ? Error() : done.error());
}

void serve(ClientPart part, ServeOptions options = {}) {
  sim::for_each_seed(3, [part, &options](uint64_t seed) { serve_one(seed, part, options); });
}
void serve_both(ClientPart part, ServeOptions options = {}) {
  serve(part, options);
  options.structured = true;
  serve(part, options);
}

Task<void> read_everywhere(TestBench&, TestClient& client) {
  for (uint64_t offset : {0ull, 512ull, 4096ull, 1000ull, 65535ull, 300001ull}) {
    for (uint64_t length : {1ull, 512ull, 4096ull, 65536ull, 200000ull}) {
      Reply reply = co_await client.call(kRead, 0, offset, length);
      EXPECT_EQ(reply.error, 0u);
      EXPECT_TRUE(reply.read == content(offset, length, 1)) << offset << " " << length;
    }
  }
}
TEST(ServerSessionTest, ReadsGiveTheDisksBytesAtAnyAlignment) {
  ServeOptions options;
  options.content = content(0, 1 << 20, 1);
  serve_both(&read_everywhere, options);
}

Task<void> write_everywhere(TestBench& bench, TestClient& client) {
  uint64_t offset = 0;
  for (uint64_t length : {1u, 511u, 4096u, 65535u, 65536u, 65537u, 300000u, 1u << 20}) {
    std::string written = content(offset, length, length);
    const uint16_t flags = length % 2 ? kFua : kNone;
    Reply reply = co_await client.call(kWrite, flags, offset, length, written);
    EXPECT_EQ(reply.error, 0u);
    EXPECT_TRUE(bench.disk.peek(offset, length) == written) << length;
    EXPECT_EQ(bench.disk.peek(offset + length, 100), std::string(100, '\0'));
    offset += length;
  }
}
TEST(ServerSessionTest, WritesOfAllSizesArriveWholeAndOnlyThere) { serve_both(&write_everywhere); }

Task<void> empty_requests(TestBench&, TestClient& client) {
  for (uint16_t type : {kRead, kWrite, kTrim, kWriteZeroes, kCache}) {
    Reply reply = co_await client.call(type, 0, 4096, 0);
    EXPECT_EQ(reply.error, 0u) << type;
    EXPECT_EQ(reply.read, "");
  }
}
TEST(ServerSessionTest, EmptyRequestsSucceed) { serve_both(&empty_requests); }

Task<void> zero_and_trim(TestBench& bench, TestClient& client) {
  constexpr uint16_t kFastFua = kFastZero | kFua;
  for (uint16_t flags : {kNone, kNoHole, kFua, kFastFua}) {
    bench.disk.poke(0, content(0, 1 << 20, 3));
    Reply reply = co_await client.call(kWriteZeroes, flags, 1000, 500000);
    EXPECT_EQ(reply.error, 0u) << flags;
    EXPECT_TRUE(bench.disk.peek(0, 1000) == content(0, 1000, 3));
    EXPECT_EQ(bench.disk.peek(1000, 500000), std::string(500000, '\0'));
    EXPECT_TRUE(bench.disk.peek(501000, 1000) == content(501000, 1000, 3));
  }
  Reply reply = co_await client.call(kTrim, kFua, 0, 1 << 20);
  EXPECT_EQ(reply.error, 0u);
  reply = co_await client.call(kFlush, 0, 0, 0);
  EXPECT_EQ(reply.error, 0u);
  reply = co_await client.call(kCache, 0, 0, 1 << 20);
  EXPECT_EQ(reply.error, 0u);
}
TEST(ServerSessionTest, ZeroesTrimFlushAndCacheSucceed) { serve_both(&zero_and_trim); }

Task<void> ask_wrongly(TestBench& bench, TestClient& client) {
  struct Case {
    uint16_t type, flags;
    uint64_t offset, length;
    uint32_t error;
  };
  for (Case wrong :
       {Case{kRead, 0, kDiskBytes, 1, EINVAL}, Case{kRead, kNoHole, 0, 1, EINVAL},
        Case{kWrite, 0, kDiskBytes - 1, 2, ENOSPC}, Case{kWrite, 0, kDiskBytes, 300000, ENOSPC},
        Case{kWrite, kDf, 0, 512, EINVAL}, Case{kTrim, 0, 1, kDiskBytes, EINVAL},
        Case{kWriteZeroes, 0, 1, kDiskBytes, ENOSPC}, Case{kFlush, 0, 1, 0, EINVAL},
        Case{99, 0, 0, 0, EINVAL}, Case{kRead, 0, 0, (32 << 20) + 1, EOVERFLOW}}) {
    std::string payload(wrong.type == kWrite ? wrong.length : 0, 'x');
    Reply reply =
        co_await client.call(wrong.type, wrong.flags, wrong.offset, wrong.length, payload);
    EXPECT_EQ(reply.error, wrong.error) << wrong.type << " " << wrong.offset;
    EXPECT_EQ(reply.read, "");
  }
  EXPECT_EQ(bench.disk.peek(0, 4096), std::string(4096, '\0'));
  Reply reply = co_await client.call(kRead, 0, 0, 512);
  EXPECT_EQ(reply.error, 0u);
}
TEST(ServerSessionTest, WrongRequestsAreAnsweredAndTheSessionGoesOn) { serve_both(&ask_wrongly); }

Task<void> ask_past_the_end(TestBench&, TestClient& client) {
  Reply reply = co_await client.call(kRead, 0, kDiskBytes, 512);
  if (reply.chunks.empty()) co_return;  // a simple reply has no room for words
  const std::string message = "read of 512 bytes at " + std::to_string(kDiskBytes) +
                              " goes past the end of the export, which has " +
                              std::to_string(kDiskBytes) + " bytes";
  EXPECT_EQ(reply.chunks[0].payload, be32(EINVAL) + be16(message.size()) + message);
}
TEST(ServerSessionTest, AStructuredRefusalSaysWhichRuleAndWithWhichNumbers) {
  serve_both(&ask_past_the_end);
}

Task<void> write_to_read_only(TestBench&, TestClient& client) {
  for (uint16_t type : {kWrite, kTrim, kWriteZeroes}) {
    std::string payload(type == kWrite ? 512 : 0, 'x');
    Reply reply = co_await client.call(type, 0, 0, 512, payload);
    EXPECT_EQ(reply.error, static_cast<uint32_t>(EPERM));
  }
  Reply reply = co_await client.call(kFlush, 0, 0, 0);
  EXPECT_EQ(reply.error, 0u);
}
TEST(ServerSessionTest, AReadOnlyExportRefusesWritesWithEperm) {
  ServeOptions options;
  options.read_only = true;
  serve_both(&write_to_read_only, options);
}

Task<void> meet_a_failing_disk(TestBench& bench, TestClient& client) {
  FaultRule rule;
  rule.operations = StorageOperation::kRead;
  rule.errno_value = EIO;
  bench.disk.faults().add(rule);
  Reply reply = co_await client.call(kRead, 0, 0, 4096);
  EXPECT_EQ(reply.error, static_cast<uint32_t>(EIO));
  EXPECT_EQ(reply.read, "");
  bench.disk.faults().clear();
  rule.operations = StorageOperation::kWrite;
  rule.errno_value = EDQUOT;
  bench.disk.faults().add(rule);
  reply = co_await client.call(kWrite, 0, 0, 4096, std::string(4096, 'x'));
  EXPECT_EQ(reply.error, static_cast<uint32_t>(ENOSPC));
  bench.disk.faults().clear();
  reply = co_await client.call(kRead, 0, 0, 4096);
  EXPECT_EQ(reply.error, 0u);
}
TEST(ServerSessionTest, ErrorsOfTheDiskReachTheClientAsTheProtocolsOwn) {
  serve_both(&meet_a_failing_disk);
}

// Data at the first 64 KiB of every 256 KiB.
std::string striped() {
  std::string text(2 << 20, '\0');
  for (size_t at = 0; at < text.size(); at += 256 << 10) {
    text.replace(at, 64 << 10, content(at, 64 << 10, 9));
  }
  return text;
}
void poke_stripes(TestDisk& disk) {
  for (size_t at = 0; at < 2 << 20; at += 256 << 10) disk.poke(at, content(at, 64 << 10, 9));
}

Task<void> read_sparsely(TestBench& bench, TestClient& client) {
  poke_stripes(bench.disk);
  Reply reply = co_await client.call(kRead, 0, 0, 512 << 10);
  EXPECT_TRUE(reply.read == striped().substr(0, 512 << 10));
  EXPECT_EQ(reply.chunks.size(), 4u);
  EXPECT_EQ(reply.chunks[1].type, 2u);
  EXPECT_EQ(reply.chunks[1].payload, be64(64 << 10) + be32(192 << 10));
  // More extents than a reply tells apart: the rest comes as data.
  reply = co_await client.call(kRead, 0, 0, 2 << 20);
  EXPECT_TRUE(reply.read == striped());
  EXPECT_EQ(reply.chunks.size(), 8u);
  EXPECT_EQ(reply.chunks[7].type, 1u);
  reply = co_await client.call(kRead, kDf, 0, 512 << 10);
  EXPECT_TRUE(reply.read == striped().substr(0, 512 << 10));
  EXPECT_EQ(reply.chunks.size(), 1u);
  EXPECT_EQ(reply.chunks[0].type, 1u);
  reply = co_await client.call(kRead, 0, 4 << 20, 1 << 20);
  EXPECT_EQ(reply.chunks.size(), 1u);
  EXPECT_EQ(reply.chunks[0].type, 2u);
}
TEST(ServerSessionTest, StructuredReadsSendHolesAsHolesUnlessAskedNotTo) {
  ServeOptions options;
  options.structured = true;
  options.contexts = false;
  serve(&read_sparsely, options);
}

Task<void> read_small_zeros(TestBench& bench, TestClient& client) {
  poke_stripes(bench.disk);
  Reply reply = co_await client.call(kRead, 0, 4 << 20, 4096);
  EXPECT_EQ(reply.read, std::string(4096, '\0'));
  EXPECT_EQ(reply.chunks[0].type, 2u);
  // One byte that is not zero, at the very end.
  reply = co_await client.call(kRead, 0, (256 << 10) - 4095, 4096);
  EXPECT_TRUE(reply.read == striped().substr((256 << 10) - 4095, 4096));
  EXPECT_EQ(reply.chunks[0].type, 1u);
  reply = co_await client.call(kRead, kDf, 4 << 20, 4096);
  EXPECT_EQ(reply.read, std::string(4096, '\0'));
  EXPECT_EQ(reply.chunks[0].type, 1u);
}
TEST(ServerSessionTest, SmallStructuredReadsOfZerosSendNone) {
  ServeOptions options;
  options.structured = true;
  serve(&read_small_zeros, options);
}

Task<void> read_after_block_status(TestBench& bench, TestClient& client) {
  poke_stripes(bench.disk);
  Reply reply = co_await client.call(kRead, 0, 0, 512 << 10);
  EXPECT_TRUE(reply.read == striped().substr(0, 512 << 10));
  EXPECT_EQ(reply.chunks.size(), 1u);
}
TEST(ServerSessionTest, ClientsThatAskForBlockStatusAreNotToldOfHolesAgain) {
  ServeOptions options;
  options.structured = true;
  serve(&read_after_block_status, options);
}

Task<void> ask_block_status(TestBench& bench, TestClient& client) {
  poke_stripes(bench.disk);
  Reply reply = co_await client.call(kBlockStatus, 0, 4096, (512 << 10) - 4096);
  EXPECT_EQ(reply.chunks.size(), 1u);
  EXPECT_EQ(reply.chunks[0].type, 5u);
  EXPECT_EQ(reply.chunks[0].payload, be32(1) + be32((64 << 10) - 4096) + be32(0) + be32(192 << 10) +
                                         be32(3) + be32(64 << 10) + be32(0) + be32(192 << 10) +
                                         be32(3));
  reply = co_await client.call(kBlockStatus, kReqOne, 4096, 1 << 20);
  EXPECT_EQ(reply.chunks[0].payload, be32(1) + be32((64 << 10) - 4096) + be32(0));
  reply = co_await client.call(kBlockStatus, kReqOne, 3 << 20, 5 << 20);
  EXPECT_EQ(reply.chunks[0].payload, be32(1) + be32(5 << 20) + be32(3));
  reply = co_await client.call(kBlockStatus, 0, 4 << 20, 5 << 20);
  EXPECT_EQ(reply.error, static_cast<uint32_t>(EINVAL));
  reply = co_await client.call(kBlockStatus, 0, 0, 0);
  EXPECT_EQ(reply.error, static_cast<uint32_t>(EINVAL));
}
TEST(ServerSessionTest, BlockStatusTellsMergedExtents) {
  ServeOptions options;
  options.structured = true;
  serve(&ask_block_status, options);
}

// Waves of requests for different 32 KiB pieces, all sent before any reply is read.
Task<void> agree_with_a_model(TestBench& bench, TestClient& client) {
  constexpr uint64_t kPiece = 32 << 10, kPieces = kDiskBytes / kPiece;
  std::string model(kDiskBytes, '\0');
  Random random(bench.world.draw_seed());
  for (uint64_t wave = 1; wave <= 6; ++wave) {
    std::string bytes;
    std::map<uint64_t, std::pair<uint64_t, uint64_t>> reads;
    uint64_t count = 1 + random.below(kPieces);
    uint64_t first = random.below(kPieces);
    for (uint64_t i = 0; i < count; ++i) {
      uint64_t at = (first + i) % kPieces * kPiece + random.below(4000);
      uint64_t length = 1 + random.below(random.chance(70) ? 4096 : 28000);
      uint64_t what = random.below(4);
      if (what == 0) {
        std::string written = content(at, length, wave);
        model.replace(at, length, written);
        bytes += client.request(kWrite, 0, at, length, written);
      } else if (what == 1) {
        model.replace(at, length, std::string(length, '\0'));
        bytes += client.request(kWriteZeroes, 0, at, length);
      } else {
        bytes += client.request(kRead, 0, at, length);
        reads[client.last_cookie()] = {at, length};
      }
    }
    auto replies = [&client, &reads, &model, &count]() -> Task<void> {
      for (uint64_t i = 0; i < count; ++i) {
        Reply reply = co_await client.receive_reply();
        EXPECT_EQ(reply.error, 0u);
        auto found = reads.find(reply.cookie);
        if (found == reads.end()) continue;
        auto [at, length] = found->second;
        EXPECT_TRUE(reply.read == model.substr(at, length)) << "at " << at;
      }
    };
    auto send_all = [&client, &bytes, &replies](Scope& scope) -> Task<void> {
      scope.spawn(replies());
      co_await client.send(bytes);
    };
    co_await with_scope(send_all);
  }
  EXPECT_TRUE(bench.disk.peek(0, kDiskBytes) == model);
}
TEST(ServerSessionTest, ManyRequestsAtOnceAgreeWithAModel) {
  ServeOptions options;
  serve_both(&agree_with_a_model, options);
  options.delay = std::chrono::milliseconds(1);
  serve_both(&agree_with_a_model, options);
}
TEST(ServerSessionTest, RequestsHandedToAnotherShardAgreeWithAModel) {
  ServeOptions options;
  options.hand_over = true;
  serve_both(&agree_with_a_model, options);
  options.delay = std::chrono::milliseconds(1);
  serve_both(&agree_with_a_model, options);
}

Task<void> say_goodbye_at_once(TestBench& bench, TestClient& client) {
  std::string bytes;
  for (uint64_t i = 0; i < 50; ++i) {
    bytes += client.request(kWrite, 0, i * 8192, 4096, content(i * 8192, 4096, 5));
  }
  bytes += be32(0x25609513) + be16(0) + be16(2) + be64(0) + be64(0) + be32(0);
  co_await client.send(bytes);
  for (uint64_t i = 0; i < 50; ++i) {
    Reply reply = co_await client.receive_reply();
    EXPECT_EQ(reply.error, 0u);
  }
  size_t rest = co_await client.drain();
  EXPECT_EQ(rest, 0u);
  for (uint64_t i = 0; i < 50; ++i) {
    EXPECT_TRUE(bench.disk.peek(i * 8192, 4096) == content(i * 8192, 4096, 5));
  }
}
TEST(ServerSessionTest, GoodbyeComesAfterEverythingBeforeIt) {
  sim::for_each_seed(5, [](uint64_t seed) {
    sim::SimWorld world(seed, 2);
    DelayPlan delay;
    TestDisk disk(kDiskBytes, delay);
    TestSetup setup(world, disk);
    auto part = [](TestBench& bench) -> Task<void> {
      std::unique_ptr<TestClient> client = co_await bench.connect();
      co_await client->go("disk", false);
      co_await say_goodbye_at_once(bench, *client);
    };
    Result<void> done = run_with_server(setup, part);
    EXPECT_TRUE(done.ok());
  });
}

}  // namespace
}  // namespace ringdisk::nbd
