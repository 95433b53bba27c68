// SPDX-License-Identifier: Apache-2.0
// More connections than places: whoever has not finished its handshake gives way to newcomers, the
// oldest first; whoever has keeps its place.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "nbd/server.h"
#include "nbd/simulated_server_test.h"

namespace ringdisk::nbd {
namespace {

using Reply = TestClient::Reply;
using Crowd = std::vector<std::unique_ptr<TestClient>>;

constexpr uint64_t kDiskBytes = 1 << 20;

template <class Part>
void serve(uint64_t seeds, uint32_t places, Part part) {
  sim::for_each_seed(seeds, [places, &part](uint64_t seed) {
    sim::SimWorld world(seed, 3);
    DelayPlan delay;
    delay.seed = seed;
    TestDisk disk(kDiskBytes, delay);
    TestSetup setup(world, disk);
    setup.options.connections_max = places;
    Result<void> done = run_with_server(setup, part);
    EXPECT_TRUE(done.ok()) << world.diagnostics().describe(done.ok() ? Error() : done.error());
  });
}

Task<void> settle() {
  Result<void> slept = co_await Shard::current().sleep(std::chrono::seconds(1));
  co_await std::move(slept);
}

Task<void> check_served(TestClient& client) {
  Reply written = co_await client.call(1, 0, 0, 512, content(0, 512, 3));
  EXPECT_EQ(written.error, 0u);
  Reply read = co_await client.call(0, 0, 0, 512);
  EXPECT_TRUE(read.read == content(0, 512, 3));
}

Task<void> connect_idle(TestBench& bench, Crowd& crowd, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    std::unique_ptr<TestClient> idle = co_await bench.connect();
    crowd.push_back(std::move(idle));
  }
}

Task<void> connect_through_a_crowd(TestBench& bench) {
  Crowd crowd;
  co_await connect_idle(bench, crowd, limits::kNbdConnectionsMax + 20);
  co_await settle();
  EXPECT_EQ(bench.server.connections(), limits::kNbdConnectionsMax);
  for (int i = 0; i < 3; ++i) {
    std::unique_ptr<TestClient> client = co_await bench.connect();
    co_await client->go("disk", false);
    co_await check_served(*client);
    EXPECT_EQ(bench.server.connections(), limits::kNbdConnectionsMax);
    crowd.push_back(std::move(client));
  }
}
TEST(ServerCrowdTest, IdleConnectionsLockNobodyOut) {
  serve(3, limits::kNbdConnectionsMax, &connect_through_a_crowd);
}

Task<void> come_in_order(TestBench& bench) {
  std::unique_ptr<TestClient> settled = co_await bench.connect();
  co_await settled->go("disk", true);
  std::unique_ptr<TestClient> oldest = co_await bench.connect();
  co_await oldest->greet();
  std::unique_ptr<TestClient> newer = co_await bench.connect();
  co_await newer->greet();
  co_await settle();
  std::unique_ptr<TestClient> newest = co_await bench.connect();
  co_await newest->go("disk", false);
  // The oldest that still negotiated is gone, the others are not.
  size_t rest = co_await oldest->drain();
  EXPECT_EQ(rest, 0u);
  std::vector<TestClient::OptionAnswer> answers =
      co_await newer->ask(7, TestClient::info_request("disk"));
  EXPECT_EQ(answers.back().type, 1u);
  co_await check_served(*newer);
  co_await check_served(*settled);
  co_await check_served(*newest);
}
TEST(ServerCrowdTest, TheOldestHandshakeGivesWay) { serve(10, 3, &come_in_order); }

Task<void> come_to_settled(TestBench& bench) {
  Crowd settled;
  for (int i = 0; i < 3; ++i) {
    std::unique_ptr<TestClient> client = co_await bench.connect();
    co_await client->go("disk", false);
    settled.push_back(std::move(client));
  }
  for (int i = 0; i < 10; ++i) {
    std::unique_ptr<TestClient> refused = co_await bench.connect();
    size_t greeting = co_await refused->drain();
    EXPECT_EQ(greeting, 0u);
  }
  for (const std::unique_ptr<TestClient>& client : settled) co_await check_served(*client);
}
TEST(ServerCrowdTest, WhoHasFinishedItsHandshakeKeepsItsPlace) { serve(10, 3, &come_to_settled); }

// All want in at once: whoever is told that it may begin is served, however many came after it.
Task<void> push_in(TestBench& bench, uint64_t& served) {
  Result<std::unique_ptr<TestClient>> connected = co_await bench.connect().result();
  if (!connected.ok()) co_return;
  TestClient& client = *connected.value();
  Result<void> granted = co_await client.go("disk", false).result();
  if (!granted.ok()) co_return;
  co_await settle();
  co_await check_served(client);
  ++served;
}
Task<void> push_in_together(TestBench& bench) {
  uint64_t served = 0;
  auto one = [&bench, &served](size_t) { return push_in(bench, served); };
  co_await when_all(40, one);
  EXPECT_EQ(served, 4u);
}
TEST(ServerCrowdTest, WhoeverMayBeginIsServedInACrowd) { serve(20, 4, &push_in_together); }

}  // namespace
}  // namespace ringdisk::nbd
