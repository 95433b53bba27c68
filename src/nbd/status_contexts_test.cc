// SPDX-License-Identifier: Apache-2.0
// Dirty bitmaps as metadata contexts: listed, selected, told by block status beside the allocation,
// and seen to grow under a client.
#include "nbd/status_contexts.h"

#include <gtest/gtest.h>

#include "nbd/simulated_server_test.h"

namespace ringdisk::nbd {
namespace {

using Answers = std::vector<TestClient::OptionAnswer>;
using Reply = TestClient::Reply;

constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint64_t kGranule = 64 << 10;
constexpr uint16_t kBlockStatus = 7;
constexpr uint16_t kReqOne = 8;
constexpr uint32_t kTooBig = 0x80000009;

std::shared_ptr<DirtyBits> bits_of(std::vector<uint64_t> granules) {
  auto bits = std::make_shared<DirtyBits>(ByteCount(kDiskBytes), 16);
  for (uint64_t one : granules) {
    bits->mark(GuestRange(GuestOffset(one * kGranule), ByteCount(1)));
  }
  return bits;
}

template <class Part>
void serve(Part part, std::vector<ExportBitmap> bitmaps) {
  sim::for_each_seed(5, [&](uint64_t seed) {
    sim::SimWorld world(seed, 2);
    TestDisk disk(kDiskBytes);
    TestSetup setup(world, disk);
    setup.exports[0].bitmaps = bitmaps;
    Result<void> done = run_with_server(setup, part);
    EXPECT_TRUE(done.ok()) << world.diagnostics().describe(done.ok() ? Error() : done.error());
  });
}

Task<void> list_contexts(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->greet();
  Answers answers = co_await client->ask(8, "");
  answers = co_await client->ask(9, TestClient::meta_request("disk"));
  EXPECT_EQ(answers.size(), 4u);
  EXPECT_EQ(answers[1].payload.substr(4), "qemu:dirty-bitmap:one");
  EXPECT_EQ(answers[2].payload.substr(4), "qemu:dirty-bitmap:two");
  for (const char* prefix : {"qemu:", "qemu:dirty-bitmap:"}) {
    answers = co_await client->ask(9, TestClient::meta_request("disk", std::string(prefix)));
    EXPECT_EQ(answers.size(), 3u);
    answers = co_await client->ask(10, TestClient::meta_request("disk", std::string(prefix)));
    EXPECT_EQ(answers.size(), 1u);  // no wildcard in a selection
  }
  answers = co_await client->ask(9, TestClient::meta_request("disk", "qemu:dirty-bitmap:two"));
  EXPECT_EQ(answers.size(), 2u);
  answers = co_await client->ask(
      10, TestClient::meta_request("disk", "qemu:dirty-bitmap:none", "qemu:dirty-bitmap:two"));
  EXPECT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0].payload, be32(3) + "qemu:dirty-bitmap:two");
  answers = co_await client->ask(2, "");
}
TEST(StatusContextsTest, BitmapsAreListedAndSelectedByName) {
  serve(&list_contexts, {{"one", bits_of({})}, {"two", bits_of({})}});
}

Task<void> go_with(TestClient& client, std::string request) {
  co_await client.greet();
  Answers answers = co_await client.ask(8, "");
  answers = co_await client.ask(10, std::move(request));
  EXPECT_EQ(answers.back().type, 1u);
  answers = co_await client.ask(7, TestClient::info_request("disk"));
  EXPECT_EQ(answers.back().type, 1u);
  client.expect_structured_replies();
}

Task<void> ask_for_both(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await go_with(*client,
                   TestClient::meta_request("disk", "qemu:dirty-bitmap:one", "base:allocation"));
  Reply reply = co_await client->call(kBlockStatus, 0, 4096, kDiskBytes - 4096);
  EXPECT_EQ(reply.chunks.size(), 2u);
  EXPECT_EQ(reply.chunks[0].flags, 0u);
  EXPECT_EQ(reply.chunks[0].payload, be32(1) + be32(kDiskBytes - 4096) + be32(3));
  EXPECT_EQ(reply.chunks[1].flags, 1u);
  EXPECT_EQ(reply.chunks[1].payload, be32(2) + be32(2 * kGranule - 4096) + be32(0) +
                                         be32(2 * kGranule) + be32(1) + be32(12 * kGranule) +
                                         be32(0));
  reply = co_await client->call(kBlockStatus, kReqOne, 2 * kGranule, kDiskBytes - 2 * kGranule);
  EXPECT_EQ(reply.chunks[1].payload, be32(2) + be32(2 * kGranule) + be32(1));
  co_await client->disconnect();
}
TEST(StatusContextsTest, EachContextIsAChunkOfTheReply) {
  serve(&ask_for_both, {{"one", bits_of({2, 3})}});
}

Task<void> ask_for_the_bitmap(TestBench& bench, DirtyBits& bits) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await go_with(*client, TestClient::meta_request("disk", "qemu:dirty-bitmap:one"));
  bits.clear();
  Reply reply = co_await client->call(kBlockStatus, 0, 0, kDiskBytes);
  EXPECT_EQ(reply.chunks.size(), 1u);
  EXPECT_EQ(reply.chunks[0].payload, be32(2) + be32(kDiskBytes) + be32(0));
  bits.mark(GuestRange(GuestOffset(0), ByteCount(1)));
  reply = co_await client->call(kBlockStatus, 0, 0, kDiskBytes);
  EXPECT_EQ(reply.chunks[0].payload,
            be32(2) + be32(kGranule) + be32(1) + be32(kDiskBytes - kGranule) + be32(0));
  co_await client->disconnect();
}
TEST(StatusContextsTest, ABitmapThatGrowsShowsAtOnce) {
  std::shared_ptr<DirtyBits> bits = bits_of({});
  auto part = [bits](TestBench& bench) { return ask_for_the_bitmap(bench, *bits); };
  serve(part, {{"one", bits}});
}

std::string every_bitmap(size_t count) {
  std::string request = be32(4) + "disk" + be32(count);
  for (size_t i = 0; i < count; ++i) {
    const std::string name = "qemu:dirty-bitmap:" + std::to_string(i);
    request += be32(name.size()) + name;
  }
  return request;
}

// Stripes of one granule, so that the parts of the reply's buffer are all used.
Task<void> ask_for_all(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->greet();
  Answers answers = co_await client->ask(8, "");
  answers = co_await client->ask(10, every_bitmap(kStatusContextsMax + 1));
  EXPECT_EQ(answers.back().type, kTooBig);
  answers = co_await client->ask(10, every_bitmap(kStatusContextsMax));
  EXPECT_EQ(answers.size(), kStatusContextsMax + 1);
  answers = co_await client->ask(7, TestClient::info_request("disk"));
  client->expect_structured_replies();
  Reply reply = co_await client->call(kBlockStatus, 0, 0, kDiskBytes);
  EXPECT_EQ(reply.chunks.size(), kStatusContextsMax);
  std::string stripes;
  for (uint32_t i = 0; i < 16; ++i) stripes += be32(kGranule) + be32(i % 2);
  for (uint32_t i = 0; i < kStatusContextsMax; ++i) {
    EXPECT_EQ(reply.chunks[i].payload, be32(2 + i) + stripes);
    EXPECT_EQ(reply.chunks[i].flags, i + 1 == kStatusContextsMax ? 1u : 0u);
  }
  co_await client->disconnect();
}
TEST(StatusContextsTest, AsManyAsOneConnectionMaySelect) {
  std::vector<ExportBitmap> bitmaps;
  for (uint32_t i = 0; i < kStatusContextsMax + 1; ++i) {
    bitmaps.push_back({std::to_string(i), bits_of({1, 3, 5, 7, 9, 11, 13, 15})});
  }
  serve(&ask_for_all, bitmaps);
}

}  // namespace
}  // namespace ringdisk::nbd
