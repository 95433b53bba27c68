// SPDX-License-Identifier: Apache-2.0
// How a server ends, and what it says: idle clients, clients that do not take their replies, a
// hurry; and how much a crowd of clients that break the rules can write into the log.
#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>
#include <sstream>
#include <string>

#include "base/log.h"
#include "nbd/server.h"
#include "nbd/simulated_server_test.h"

namespace ringdisk::nbd {
namespace {

constexpr uint64_t kDiskBytes = 4 << 20;

// --- how a stop ends -----------------------------------------------------------------------------

struct StopCase {
  bool is_greedy = false;               // one client fetches no replies
  std::optional<Duration> hurry_after;  // after the stop
  // outcome
  Duration took{0};
  uint32_t clients_told_of = 0;
};

Task<void> run_and_note(Server& server, CancelToken stop, CancelToken hurry, Event& ended) {
  Result<void> done = co_await server.run(stop, hurry).result();
  ended.set();
  co_await std::move(done);
}

Task<std::unique_ptr<TestClient>> connect(Network& network) {
  return TestClient::connect(network, UnixAddress{"/sock"});
}

Task<std::unique_ptr<TestClient>> connect_greedy(Network& network) {
  std::unique_ptr<TestClient> client = co_await connect(network);
  co_await client->go("disk", false);
  std::string bytes;
  for (uint64_t i = 0; i < 60; ++i) bytes += client->request(0, 0, i * 4096, 65536);
  co_await client->send(std::move(bytes));
  co_return std::move(client);
}

Task<void> stop_and_measure(Scope& scope, Server& server, sim::SimWorld& world, StopCase& result) {
  CancelSource stop, hurry;
  Event ended;
  scope.spawn(run_and_note(server, stop.token(), hurry.token(), ended));
  Shard& shard = Shard::current();
  std::unique_ptr<TestClient> idle = co_await connect(world.network());
  co_await idle->go("disk", false);
  std::unique_ptr<TestClient> in_handshake = co_await connect(world.network());
  std::unique_ptr<TestClient> greedy;
  if (result.is_greedy) greedy = co_await connect_greedy(world.network());
  Result<void> settled = co_await shard.sleep(std::chrono::seconds(1));
  co_await std::move(settled);
  const Instant began = shard.clock().now();
  stop.cancel();
  if (result.hurry_after) {
    Result<void> slept = co_await shard.sleep(*result.hurry_after);
    co_await std::move(slept);
    hurry.cancel();
  }
  co_await ended.wait();
  result.took = shard.clock().now() - began;
}

StopCase stop_with(StopCase result, uint64_t seed) {
  sim::SimWorld world(seed, 2);
  TestDisk disk(kDiskBytes);
  TestSetup setup(world, disk);
  setup.options.on_waiting = [&result](uint32_t clients) { result.clients_told_of += clients; };
  auto root = [&](Shard&) -> Task<void> {
    Server server(world.world(), setup.options, setup.exports);
    co_await server.listen();
    co_await with_scope(&stop_and_measure, server, world, result);
  };
  Result<void> done = world.run(root);
  EXPECT_TRUE(done.ok());
  EXPECT_EQ(world.network().open_links(), 0u);
  return result;
}

TEST(ServerStopTest, AStopEndsIdleConnectionsAtOnce) {
  sim::for_each_seed(5, [](uint64_t seed) {
    StopCase result = stop_with({}, seed);
    EXPECT_LT(result.took, std::chrono::milliseconds(200));
    EXPECT_EQ(result.clients_told_of, 0u) << "nothing to speak of";
  });
}

TEST(ServerStopTest, AStopWaitsABoundedTimeForAClientThatFetchesNothingAndSaysSo) {
  sim::for_each_seed(5, [](uint64_t seed) {
    StopCase greedy;
    greedy.is_greedy = true;
    StopCase result = stop_with(greedy, seed);
    EXPECT_GE(result.took, std::chrono::seconds(limits::kNbdDrainSeconds));
    EXPECT_LT(result.took, std::chrono::seconds(limits::kNbdDrainSeconds + 1));
    EXPECT_EQ(result.clients_told_of, 1u) << "once, and only of the one that is waited for";
  });
}

TEST(ServerStopTest, AHurryEndsTheWaitAtOnce) {
  sim::for_each_seed(5, [](uint64_t seed) {
    StopCase greedy;
    greedy.is_greedy = true;
    greedy.hurry_after = std::chrono::seconds(2);
    StopCase result = stop_with(greedy, seed);
    EXPECT_GE(result.took, std::chrono::seconds(2));
    EXPECT_LT(result.took, std::chrono::milliseconds(2200));
    EXPECT_EQ(result.clients_told_of, 1u);
  });
}

// --- what is said of clients ---------------------------------------------------------------------

Task<void> send_garbage_often(Scope& scope, Server& server, Network& network, int clients) {
  CancelSource stop;
  Event ended;
  scope.spawn(run_and_note(server, stop.token(), CancelToken(), ended));
  for (int i = 0; i < clients; ++i) {
    std::unique_ptr<TestClient> client = co_await connect(network);
    (void)co_await client->send(std::string(200, 'x')).result();
    co_await client->drain();
  }
  stop.cancel();
  co_await ended.wait();
}

uint64_t number_at_front(const std::string& line) {
  uint64_t number = 0;
  for (size_t i = 0; i < line.size() && line[i] >= '0' && line[i] <= '9'; ++i) {
    number = number * 10 + static_cast<uint64_t>(line[i] - '0');
  }
  return number;
}

TEST(ServerLogTest, ManyClientsThatSendGarbageAreAFewLinesThatCountThemAll) {
  constexpr int kClients = 300;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  Log log(ends[1], LogLevel::kWarning, "");
  sim::SimWorld world(1, 2);
  const World& quiet = world.world();
  const World loud{quiet.clock,    log,           quiet.diagnostics,
                   quiet.blocking, quiet.network, quiet.shards};
  TestDisk disk(kDiskBytes);
  TestSetup setup(world, disk);
  auto root = [&](Shard&) -> Task<void> {
    Server server(loud, setup.options, setup.exports);
    co_await server.listen();
    int clients = kClients;
    co_await with_scope(&send_garbage_often, server, world.network(), clients);
  };
  Result<void> done = world.run(root);
  EXPECT_TRUE(done.ok());
  close(ends[1]);
  std::string said(65536, '\0');
  const ssize_t bytes = read(ends[0], said.data(), said.size());
  close(ends[0]);
  ASSERT_GT(bytes, 0);
  std::istringstream lines(said.substr(0, static_cast<size_t>(bytes)));
  uint64_t dropped = 0, left_out = 0, count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    if (line.starts_with("dropped ")) {
      ++dropped;
    } else {
      bool is_sum = line.find(" about clients w") != std::string::npos;
      EXPECT_TRUE(is_sum && line.ends_with(" left out")) << line;
      left_out += number_at_front(line);
    }
  }
  EXPECT_EQ(dropped + left_out, uint64_t{kClients});
  const auto seconds =
      static_cast<uint64_t>(world.clock().now().since_start.count() / 1'000'000'000);
  EXPECT_LE(count, (limits::kNbdComplaintsMax + 1) * (seconds + 1));
  EXPECT_LT(count, uint64_t{kClients} / 2) << "the test took too long to show anything";
}

}  // namespace
}  // namespace ringdisk::nbd
