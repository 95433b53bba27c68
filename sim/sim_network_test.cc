// SPDX-License-Identifier: Apache-2.0
// The simulated network: bytes arrive whole and in order however they are cut, and faults come
// where they are asked for.
#include "sim/sim_network.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "async/scope.h"
#include "sim/sim_world.h"

namespace ringdisk::sim {
namespace {

const Address kAddress = UnixAddress{"/sim/socket"};

std::vector<std::byte> numbered_bytes(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  return bytes;
}

// One conversation between shard 0 (server) and the last shard (client).
struct Conversation {
  SimWorld& world;
  std::vector<std::byte> sent = numbered_bytes(200'000);
  std::vector<std::byte> received;
  size_t reads = 0;
  std::optional<Error> reader_error;
  std::optional<Error> writer_error;
};

Task<void> receive_all(Stream& stream, Conversation& talk) {
  std::vector<std::byte> piece(30'000);
  CancelToken never;
  for (;;) {
    size_t count = co_await stream.read_some(piece, never);
    if (count == 0) co_return;
    ++talk.reads;
    talk.received.insert(talk.received.end(), piece.begin(),
                         piece.begin() + static_cast<std::ptrdiff_t>(count));
  }
}
Task<void> serve(Conversation& talk, Listener& listener) {
  CancelToken never;
  std::unique_ptr<Connection> connection = co_await listener.accept(never);
  std::unique_ptr<Stream> stream = connection->open_stream(Shard::current());
  Result<void> done = co_await receive_all(*stream, talk).result();
  if (!done.ok()) talk.reader_error = done.error();
}
Task<void> send_all(Conversation& talk) {
  CancelToken never;
  std::unique_ptr<Connection> connection = co_await talk.world.network().connect(kAddress);
  std::unique_ptr<Stream> stream = connection->open_stream(Shard::current());
  ConstBuffers all = Bytes(talk.sent);
  for (size_t offset = 0; offset < talk.sent.size(); offset += 50'000) {
    co_await stream->write_all(all.slice(offset, 50'000), never);
  }
}
Task<void> send_all_noting(Conversation& talk) {
  Result<void> done = co_await send_all(talk).result();
  if (!done.ok()) talk.writer_error = done.error();
}
Task<void> converse(Conversation& talk) {
  std::unique_ptr<Listener> listener = co_await talk.world.network().listen(kAddress);
  auto one = [&talk, &listener](size_t which) {
    if (which == 0) return serve(talk, *listener);
    auto client = [&talk] { return send_all_noting(talk); };
    return talk.world.shard(talk.world.shard_count() - 1).call(client);
  };
  co_await when_all(2, one);
}
void run(Conversation& talk) {
  auto body = [&talk](Shard&) { return converse(talk); };
  Result<void> done = talk.world.run(body);
  EXPECT_TRUE(done.ok()) << done.error().operation;
  EXPECT_EQ(talk.world.network().open_links(), 0u);
}

TEST(SimNetworkTest, BytesArriveInOrderInPiecesAndThenTheEnd) {
  for_each_seed(30, [](uint64_t seed) {
    SimWorld world(seed, 2);
    world.network().behaviour.buffered_bytes = 1 + seed * 997;
    Conversation talk{world};
    run(talk);
    EXPECT_EQ(talk.received, talk.sent);
    EXPECT_GT(talk.reads, 7u);
    EXPECT_FALSE(talk.reader_error || talk.writer_error);
  });
}

TEST(SimNetworkTest, ACutConnectionFailsBothEndsAndGivesNoWrongBytes) {
  for_each_seed(30, [](uint64_t seed) {
    SimWorld world(seed, 2);
    world.network().faults.cut_at_byte = seed * 5000;
    Conversation talk{world};
    run(talk);
    ASSERT_TRUE(talk.writer_error);
    EXPECT_EQ(talk.writer_error->errno_value, ECONNRESET);
    ASSERT_TRUE(talk.reader_error);
    EXPECT_EQ(talk.reader_error->errno_value, ECONNRESET);
    ASSERT_LE(talk.received.size(), seed * 5000);
    EXPECT_TRUE(std::equal(talk.received.begin(), talk.received.end(), talk.sent.begin()));
  });
}

TEST(SimNetworkTest, TheOperationThatIsToFailFails) {
  for_each_seed(10, [](uint64_t seed) {
    SimWorld world(seed, 2);
    world.network().faults.fail_operation = 4;
    Conversation talk{world};
    run(talk);
    EXPECT_TRUE(talk.writer_error || talk.reader_error);
    EXPECT_NE(talk.received, talk.sent);
  });
}

Task<void> connect_to_nobody(SimWorld& world) {
  std::unique_ptr<Connection> connection = co_await world.network().connect(kAddress);
}

TEST(SimNetworkTest, WhereNobodyListensConnectionsAreRefused) {
  SimWorld world(1);
  auto body = [&world](Shard&) { return connect_to_nobody(world); };
  Result<void> done = world.run(body);
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().errno_value, ECONNREFUSED);
}

Task<void> cancel_later(Shard& shard, CancelSource& source) {
  (void)co_await shard.sleep(std::chrono::seconds(5));
  source.cancel();
}
Task<void> accept_for_ever(SimWorld& world, CancelSource& source) {
  std::unique_ptr<Listener> listener = co_await world.network().listen(kAddress);
  std::unique_ptr<Connection> connection = co_await listener->accept(source.token());
}
Task<void> accept_until_cancelled(Shard& shard, SimWorld& world, CancelSource& source) {
  auto one = [&shard, &world, &source](size_t which) {
    if (which == 0) return cancel_later(shard, source);
    return accept_for_ever(world, source);
  };
  co_await when_all(2, one);
}

TEST(SimNetworkTest, AWaitEndsWhenItIsCancelled) {
  SimWorld world(1);
  CancelSource source;
  auto body = [&](Shard& shard) { return accept_until_cancelled(shard, world, source); };
  Result<void> done = world.run(body);
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().kind, ErrorKind::kCancelled);
  EXPECT_EQ(world.clock().now().since_start, std::chrono::seconds(5));
}

TEST(SimNetworkDeathTest, WhoWaitsForAStalledPeerWithoutABoundHangs) {
  EXPECT_DEATH(
      {
        SimWorld world(79, 2);
        world.network().faults.stall_at_byte = 1000;
        Conversation talk{world};
        run(talk);
      },
      "hangs: nothing can run.*RINGDISK_SEED=79");
}

}  // namespace
}  // namespace ringdisk::sim
