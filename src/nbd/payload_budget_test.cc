// SPDX-License-Identifier: Apache-2.0
// Clients that ask for much and take nothing, beside others: what the server holds for all of them
// is bounded, and nobody waits for them.
#include "nbd/payload_budget.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "nbd/simulated_server_test.h"

namespace ringdisk::nbd {
namespace {

using Reply = TestClient::Reply;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kDiskBytes = 8 * kMiB;
constexpr uint32_t kShards = 2;
constexpr uint16_t kRead = 0, kWrite = 1;

TEST(PayloadBudgetTest, GrantsWhatIsLeftAndToEachALittleAlways) {
  PayloadBudget budget(4 * kMiB);
  EXPECT_TRUE(budget.grants(4 * kMiB, 0));
  EXPECT_FALSE(budget.grants(4 * kMiB + 1, 0));
  budget.add(4 * kMiB);
  EXPECT_TRUE(budget.grants(kPayloadAlways, 0));
  EXPECT_FALSE(budget.grants(kPayloadAlways, 1));
  EXPECT_TRUE(budget.grants(kPayloadAlways - 1, 1));
  budget.remove(4 * kMiB);
  EXPECT_TRUE(budget.grants(kMiB, 3 * kMiB));
}

TEST(PayloadBudgetTest, OneConnectionAloneAlwaysHasItsBound) {
  EXPECT_EQ(payload_of_shard(2), kPayloadOfAllMax / 2);
  EXPECT_EQ(payload_of_shard(256), limits::kNbdPayloadInFlightMax);
}

Task<void> stall(TestBench& bench, std::unique_ptr<TestClient>& client) {
  client = co_await bench.connect();
  co_await client->go("disk", false);
  std::string reads;
  for (int i = 0; i < 20; ++i) reads += client->request(kRead, 0, 0, kMiB);
  co_await client->send(reads);
}

Task<void> settle() {
  Result<void> slept = co_await Shard::current().sleep(std::chrono::seconds(1));
  co_await std::move(slept);
}

Task<void> read_many_at_once(TestClient& client) {
  std::string reads;
  for (uint64_t i = 0; i < 8; ++i) reads += client.request(kRead, 0, i * kMiB, kMiB);
  co_await client.send(reads);
  for (int i = 0; i < 8; ++i) {
    std::string reply = co_await client.receive(16 + kMiB);
    EXPECT_EQ(reply.substr(4, 4), std::string(4, '\0'));
  }
}

Task<void> go_on_beside_stalled_clients(TestBench& bench) {
  std::vector<std::unique_ptr<TestClient>> stalled(2 * kShards);
  for (auto& client : stalled) co_await stall(bench, client);
  co_await settle();
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", false);
  co_await read_many_at_once(*client);
  Reply refused = co_await client->call(kRead, 0, 0, 4 * kMiB);
  EXPECT_EQ(refused.error, static_cast<uint32_t>(ENOMEM));
  const std::string written(4 * kMiB, 'w');
  refused = co_await client->call(kWrite, 0, 0, 4 * kMiB, written);
  EXPECT_EQ(refused.error, static_cast<uint32_t>(ENOMEM));
  EXPECT_EQ(bench.disk.peek(0, 512), std::string(512, '\0'));
  stalled.clear();
  co_await settle();
  Reply granted = co_await client->call(kWrite, 0, 0, 4 * kMiB, written);
  EXPECT_EQ(granted.error, 0u);
  granted = co_await client->call(kRead, 0, 0, 4 * kMiB);
  EXPECT_TRUE(granted.read == written);
  co_await client->disconnect();
}

TEST(PayloadBudgetTest, StalledClientsCostTheOthersDepthAlone) {
  sim::for_each_seed(5, [](uint64_t seed) {
    sim::SimWorld world(seed, kShards);
    TestDisk disk(kDiskBytes);
    TestSetup setup(world, disk);
    setup.options.payload_of_shard_max = 4 * kMiB;
    Result<void> done = run_with_server(setup, &go_on_beside_stalled_clients);
    EXPECT_TRUE(done.ok()) << world.diagnostics().describe(done.ok() ? Error() : done.error());
  });
}

}  // namespace
}  // namespace ringdisk::nbd
