// SPDX-License-Identifier: Apache-2.0
// The server as a whole: several clients on several shards, clients that break off or misbehave
// anywhere, networks and disks that fail, and stops in the middle of everything.
#include "nbd/server.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "nbd/simulated_server_test.h"
#include "sim/crash_log.h"
#include "sim/sim_storage.h"

namespace ringdisk::nbd {
namespace {

using Reply = TestClient::Reply;

constexpr uint64_t kDiskBytes = 4 << 20;

template <class Part>
void serve(uint64_t seeds, uint32_t shards, Part part) {
  sim::for_each_seed(seeds, [shards, &part](uint64_t seed) {
    sim::SimWorld world(seed, shards);
    DelayPlan delay;
    delay.seed = seed;
    TestDisk disk(kDiskBytes, delay);
    TestSetup setup(world, disk);
    Result<void> done = run_with_server(setup, part);
    EXPECT_TRUE(done.ok()) << world.diagnostics().describe(done.ok() ? Error() : done.error());
  });
}

// A client that writes its own part of the disk and reads it back.
Task<void> write_and_read_back(TestBench& bench, uint64_t number, bool structured) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", structured);
  for (uint64_t at = number * 65536; at < (number + 1) * 65536; at += 4096) {
    Reply reply = co_await client->call(1, 0, at, 4096, content(at, 4096, number));
    EXPECT_EQ(reply.error, 0u);
  }
  for (uint64_t at = number * 65536; at < (number + 1) * 65536; at += 4096) {
    Reply reply = co_await client->call(0, 0, at, 4096);
    EXPECT_EQ(reply.error, 0u);
    EXPECT_TRUE(reply.read == content(at, 4096, number));
  }
  co_await client->disconnect();
  co_await client->drain();
}

Task<void> several_clients(TestBench& bench) {
  auto one = [&bench](size_t number) {
    return write_and_read_back(bench, number, number % 2 == 0);
  };
  co_await when_all(9, one);
  EXPECT_EQ(bench.server.connections_total(), 9u);
  // They were spread: every shard has had frames of its own.
  for (uint32_t i = 0; i < bench.world.shard_count(); ++i) {
    EXPECT_GT(bench.world.shard(i).executor().frames().allocated_total(), 100u) << i;
  }
}
TEST(ServerTest, SeveralClientsOnSeveralShardsKeepTheirOwnBytes) { serve(10, 3, &several_clients); }

Task<void> check_that_it_serves(TestBench& bench) { co_await write_and_read_back(bench, 1, false); }

// Sends `bytes` after entering transmission, and then whatever: the server must close, and serve
// the next.
Task<void> break_the_rules(TestBench& bench, std::string bytes) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", false);
  co_await client->send(bytes);
  co_await client->drain();
  co_await check_that_it_serves(bench);
}
Task<void> send_wrong_magic(TestBench& bench) {
  co_await break_the_rules(bench, std::string(28, 'x'));
}
Task<void> send_oversize_write(TestBench& bench) {
  co_await break_the_rules(
      bench, be32(0x25609513) + be16(0) + be16(1) + be64(1) + be64(0) + be32((32 << 20) + 1));
}
Task<void> send_extended_request(TestBench& bench) {
  co_await break_the_rules(bench, be32(0x21e41c71) + std::string(28, '\0'));
}
TEST(ServerTest, GarbageInsteadOfARequestEndsThatConnectionAlone) {
  serve(3, 2, &send_wrong_magic);
  serve(3, 2, &send_extended_request);
}
TEST(ServerTest, AWriteOfAbsurdLengthEndsThatConnectionAlone) { serve(3, 2, &send_oversize_write); }

Task<void> send_noise(TestBench& bench) {
  Random random(bench.world.draw_seed());
  for (uint64_t i = 0; i < 40; ++i) {
    std::unique_ptr<TestClient> client = co_await bench.connect();
    std::string noise;
    uint64_t length = random.below(300);
    if (random.chance(50)) noise = be32(random.below(4));
    if (random.chance(50)) noise += "IHAVEOPT" + be32(random.below(12)) + be32(random.below(64));
    for (uint64_t n = 0; n < length; ++n) noise += static_cast<char>(random.below(256));
    (void)co_await client->send(noise).result();
  }
  co_await check_that_it_serves(bench);
}
TEST(ServerTest, ClientsThatSendNoiseAndVanishDisturbNobody) { serve(10, 2, &send_noise); }

Task<void> small_session(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", true);
  std::string bytes = client->request(1, 1, 0, 3000, content(0, 3000, 4));
  bytes += client->request(0, 0, 0, 4096);
  bytes += client->request(7, 0, 0, 1 << 20);
  bytes += client->request(3, 0, 0, 0);
  co_await client->send(bytes);
  for (int i = 0; i < 4; ++i) {
    Reply reply = co_await client->receive_reply();
    EXPECT_EQ(reply.error, 0u);
  }
  co_await client->disconnect();
  co_await client->drain();
}

// The connection is cut after every single byte that both sides write.
TEST(ServerTest, AConnectionCutAtAnyByteLeavesNothingBehind) {
  uint64_t cuts = 0;
  bool is_untouched = false;
  for (uint64_t byte = 0; !is_untouched; ++byte) {
    sim::SimWorld world(byte + 1, 2);
    TestDisk disk(kDiskBytes);
    TestSetup setup(world, disk);
    world.network().faults.cut_at_byte = byte;
    auto part = [&is_untouched](TestBench& bench) -> Task<void> {
      Result<void> session = co_await small_session(bench).result();
      is_untouched = session.ok();
      bench.world.network().faults.cut_at_byte.reset();
      co_await check_that_it_serves(bench);
    };
    Result<void> done = run_with_server(setup, part);
    ASSERT_TRUE(done.ok()) << "cut at byte " << byte;
    ++cuts;
  }
  EXPECT_GT(cuts, 1000u);
}

TEST(ServerTest, EveryFailingNetworkOperationLeavesNothingBehind) {
  bool is_untouched = false;
  uint64_t failures = 0;
  for (uint64_t number = 0; !is_untouched; ++number) {
    sim::SimWorld world(number + 1, 2);
    TestDisk disk(kDiskBytes);
    TestSetup setup(world, disk);
    world.network().faults.fail_operation = number;
    uint64_t begun = 0;
    auto part = [&is_untouched, &begun, &number](TestBench& bench) -> Task<void> {
      (void)co_await small_session(bench).result();
      begun = bench.world.network().operations();
      is_untouched = begun <= number;
      bench.world.network().faults.fail_operation.reset();
      co_await check_that_it_serves(bench);
    };
    Result<void> done = run_with_server(setup, part);
    ASSERT_TRUE(done.ok()) << "operation " << number;
    ++failures;
  }
  EXPECT_GT(failures, 15u);
}

// The disk fails its n-th request: the client is told, or does not notice; the server goes on.
TEST(ServerTest, EveryFailingDiskRequestIsToldToTheClientAlone) {
  for (uint64_t number = 0;; ++number) {
    sim::SimWorld world(number + 1, 2);
    TestDisk disk(kDiskBytes);
    disk.faults().fail_nth(number, EIO);
    TestSetup setup(world, disk);
    uint64_t failed_replies = 0;
    auto part = [&failed_replies](TestBench& bench) -> Task<void> {
      std::unique_ptr<TestClient> client = co_await bench.connect();
      co_await client->go("disk", true);
      for (uint16_t type : {uint16_t{1}, uint16_t{0}, uint16_t{6}, uint16_t{4}, uint16_t{3}}) {
        uint64_t length = type == 3 ? 0 : 4096;
        std::string payload(type == 1 ? 4096 : 0, 'x');
        Reply reply = co_await client->call(type, 0, 0, length, payload);
        EXPECT_TRUE(reply.error == 0 || reply.error == EIO) << reply.error;
        failed_replies += reply.error != 0;
      }
      co_await client->disconnect();
      co_await client->drain();
    };
    Result<void> done = run_with_server(setup, part);
    if (disk.faults().failures() == 0) {
      EXPECT_EQ(failed_replies, 0u);
      EXPECT_TRUE(done.ok());
      EXPECT_GT(number, 3u);
      break;
    }
    // Either a client was told, or the last flush of the server failed, and run() says so.
    EXPECT_TRUE(failed_replies > 0 || !done.ok()) << number;
  }
}

// A client that asks for more than it fetches: the server stops reading, and others are served.
Task<void> never_fetch(TestBench& bench) {
  std::unique_ptr<TestClient> greedy = co_await bench.connect();
  co_await greedy->go("disk", false);
  std::string bytes;
  for (uint64_t i = 0; i < 60; ++i) bytes += greedy->request(0, 0, i * 4096, 65536);
  co_await greedy->send(bytes);
  co_await check_that_it_serves(bench);
  uint64_t taken = 0;
  for (uint32_t i = 0; i < bench.world.shard_count(); ++i) {
    taken += bench.world.shard(i).buffers().taken();
  }
  EXPECT_LE(taken, 2 * limits::kNbdRequestsInFlightMax);
}
TEST(ServerTest, AClientThatDoesNotFetchItsRepliesIsBoundedAndStopEndsIt) {
  serve(3, 2, &never_fetch);
}

// More requests in flight than are let in, and more payload.
Task<void> send_more_than_allowed(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", false);
  std::string bytes;
  constexpr uint64_t kCount = 3 * limits::kNbdRequestsInFlightMax;
  for (uint64_t i = 0; i < kCount; ++i) bytes += client->request(0, 0, i * 512, 512);
  for (uint64_t i = 0; i < 20; ++i) bytes += client->request(0, 0, 0, kDiskBytes);
  auto receive_all = [&client]() -> Task<void> {
    for (uint64_t i = 0; i < kCount + 20; ++i) {
      Reply reply = co_await client->receive_reply();
      EXPECT_EQ(reply.error, 0u);
    }
  };
  auto body = [&client, &bytes, &receive_all](Scope& scope) -> Task<void> {
    scope.spawn(receive_all());
    co_await client->send(bytes);
  };
  co_await with_scope(body);
  EXPECT_EQ(client->awaited(), 0u);
}
TEST(ServerTest, MoreThanMayBeInFlightWaitsAndIsServed) { serve(2, 2, &send_more_than_allowed); }

Task<void> connect_too_often(TestBench& bench) {
  std::unique_ptr<TestClient> one = co_await bench.connect();
  std::unique_ptr<TestClient> two = co_await bench.connect();
  co_await one->go("disk", false);
  co_await two->go("disk", false);
  std::unique_ptr<TestClient> three = co_await bench.connect();
  size_t greeting = co_await three->drain();
  EXPECT_EQ(greeting, 0u);
  co_await one->disconnect();
  co_await one->drain();
  Result<void> slept = co_await Shard::current().sleep(std::chrono::seconds(1));
  EXPECT_TRUE(slept.ok());
  co_await check_that_it_serves(bench);
}
TEST(ServerTest, ConnectionsBeyondTheLimitAreClosedAtOnce) {
  sim::SimWorld world(1, 2);
  TestDisk disk(kDiskBytes);
  TestSetup setup(world, disk);
  setup.options.connections_max = 2;
  Result<void> done = run_with_server(setup, &connect_too_often);
  EXPECT_TRUE(done.ok());
}

// Clients work until the server goes away under them: every write that was acknowledged is on the
// disk.
Task<void> write_until_closed(TestBench& bench, uint64_t number, std::string& acknowledged) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", false);
  for (uint64_t i = 0; i < 100; ++i) {
    uint64_t at = number * (1 << 20) + i * 4096;
    Result<Reply> reply = co_await client->call(1, 0, at, 4096, content(at, 4096, number)).result();
    if (!reply.ok()) co_return;
    if (reply.value().error == 0) acknowledged[at / 4096] = 'x';
  }
}
Task<void> stop_in_the_middle(TestBench& bench) {
  std::string acknowledged(kDiskBytes / 4096, ' ');
  auto body = [&bench, &acknowledged](Scope& scope) -> Task<void> {
    for (uint64_t number = 0; number < 3; ++number) {
      scope.spawn(write_until_closed(bench, number, acknowledged));
    }
    auto length = std::chrono::microseconds(bench.world.draw_seed() % 30000);
    Result<void> slept = co_await Shard::current().sleep(length);
    EXPECT_TRUE(slept.ok());
    bench.stop.cancel();
  };
  co_await with_scope(body);
  for (uint64_t block = 0; block < acknowledged.size(); ++block) {
    if (acknowledged[block] == ' ') continue;
    uint64_t at = block * 4096;
    EXPECT_TRUE(bench.disk.peek(at, 4096) == content(at, 4096, at >> 20)) << at;
  }
}
TEST(ServerTest, AStopInTheMiddleLosesNoAcknowledgedWrite) {
  // A client may see its connection refused when the stop comes first: that is no failure here.
  sim::for_each_seed(30, [](uint64_t seed) {
    sim::SimWorld world(seed, 2);
    DelayPlan delay;
    delay.seed = seed;
    TestDisk disk(kDiskBytes, delay);
    TestSetup setup(world, disk);
    (void)run_with_server(setup, &stop_in_the_middle);
  });
}

// Writes on one connection, flush on another, power failure: what was written is there.
struct CrashCase {
  sim::SimDisk& disk;
  std::shared_ptr<DeviceNode> device;
  sim::CrashLog& log;
  uint64_t flushed_event = 0;
};
Task<void> write_here_flush_there(TestBench& bench, CrashCase& crash) {
  std::unique_ptr<TestClient> writer = co_await bench.connect();
  std::unique_ptr<TestClient> flusher = co_await bench.connect();
  co_await writer->go("disk", false);
  co_await flusher->go("disk", true);
  for (uint64_t at = 0; at < 64 * 4096; at += 4096) {
    Reply written = co_await writer->call(1, 0, at, 4096, content(at, 4096, 8));
    EXPECT_EQ(written.error, 0u);
  }
  Reply flushed = co_await flusher->call(3, 0, 0, 0);
  EXPECT_EQ(flushed.error, 0u);
  crash.flushed_event = crash.log.events();
}
TEST(ServerTest, AFlushOnOneConnectionCoversWritesOfAnother) {
  sim::for_each_seed(10, [](uint64_t seed) {
    sim::SimWorld world(seed, 2);
    sim::CrashLog log;
    sim::SimDiskOptions options = sim::SimDiskOptions::file();
    options.size = ByteCount(kDiskBytes);
    sim::SimDisk medium(options, world.draw_seed(), &log);
    auto storage = std::make_unique<SharedStorage>(
        std::make_unique<sim::SimStorageNode>(medium, "disk.img", 1));
    auto raw = std::make_unique<RawNode>(std::move(storage), ByteCount(0), ByteCount(kDiskBytes));
    TestDisk disk(kDiskBytes);
    disk.device = std::make_shared<DeviceNode>("disk", 2, std::move(raw), nullptr);
    TestSetup setup(world, disk);
    CrashCase crash{medium, disk.device, log};
    auto part = [&crash](TestBench& bench) { return write_here_flush_there(bench, crash); };
    Result<void> done = run_with_server(setup, part);
    ASSERT_TRUE(done.ok());
    ASSERT_GT(crash.flushed_event, 0u);
    sim::SimDisk after(medium, crash.flushed_event, seed);
    std::string bytes(64 * 4096, '\0');
    after.peek(0, std::as_writable_bytes(std::span(bytes)));
    EXPECT_TRUE(bytes == content(0, bytes.size(), 8));
  });
}

TEST(ServerTest, TwoExportsOfOneNameAreRefused) {
  sim::SimWorld world(1, 1);
  TestDisk disk(kDiskBytes);
  TestSetup setup(world, disk);
  setup.exports.push_back(setup.exports[0]);
  auto part = [](TestBench&) -> Task<void> { co_return; };
  Result<void> done = run_with_server(setup, part);
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().kind, ErrorKind::kInvalid);
}

}  // namespace
}  // namespace ringdisk::nbd
