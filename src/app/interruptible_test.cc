// SPDX-License-Identifier: Apache-2.0
// Storages that stop on demand: as before until then, kCancelled from then on, and the shard's
// other work has its turn all the while.
#include "app/interruptible.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "async/scope.h"
#include "base/diagnostics.h"
#include "nodes/mem.h"
#include "runtime/shard.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

class InterruptibleTest : public ::testing::Test {
 protected:
  InterruptibleTest() {
    plain.storages.push_back(mem_driver());
    drivers = interruptible_drivers(plain, stopped);
  }

  // Runs part(access), a Task<void>, over an opened storage of 1 MiB.
  template <class Part>
  Result<void> with_storage(Part part) {
    auto root = [&](Shard& shard) -> Task<void> {
      OpenGate gate(world.diagnostics());
      Graph graph(world.world(), drivers, gate);
      Options options;
      options.set("driver", "mem");
      options.set("size", "1M");
      std::unique_ptr<SharedStorage> storage =
          co_await graph.open_storage(std::move(options), OpenMode());
      EXPECT_STREQ(storage->node->driver(), "mem");
      std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*storage, shard);
      Result<void> done = co_await part(*access).result();
      access.reset();
      co_await storage->node->close();
      co_await std::move(done);
    };
    return world.run(root);
  }

  sim::SimWorld world;
  Drivers plain, drivers;
  std::atomic<bool> stopped{false};
};

TEST_F(InterruptibleTest, RequestsPassUntilTheFlagIsSetAndFailAfterwards) {
  auto part = [&](StorageAccess& access) -> Task<void> {
    std::byte bytes[512] = {std::byte{7}};
    co_await access.write(HostOffset(4096), ConstBuffers(Bytes(bytes)));
    std::byte back[512] = {};
    co_await access.read(HostOffset(4096), MutableBuffers(MutableBytes(back)));
    EXPECT_EQ(back[0], std::byte{7});
    stopped = true;
    Result<void> read =
        co_await access.read(HostOffset(0), MutableBuffers(MutableBytes(back))).result();
    EXPECT_FALSE(read.ok());
    EXPECT_EQ(read.error().kind, ErrorKind::kCancelled);
    Result<void> written =
        co_await access.write(HostOffset(4096), ConstBuffers(Bytes(back))).result();
    EXPECT_FALSE(written.ok());
    EXPECT_EQ(written.error().kind, ErrorKind::kCancelled);
    HostRange range(HostOffset(0), ByteCount(512));
    Result<StorageExtent> found = co_await access.find_extent(range).result();
    EXPECT_FALSE(found.ok());
    Result<void> flushed = co_await access.flush().result();
    EXPECT_FALSE(flushed.ok());
  };
  Result<void> done = with_storage(part);
  EXPECT_TRUE(done.ok()) << "and it still closes";
}

Task<void> count_turns(Shard& shard, CancelToken token, uint32_t& turns) {
  while (!token.is_cancelled()) {
    Result<void> slept = co_await shard.sleep(Duration(0), token);
    if (!slept.ok()) co_return;
    ++turns;
  }
}

Task<void> read_often(StorageAccess& access, int times) {
  std::byte bytes[512];
  for (int i = 0; i < times; ++i) {
    co_await access.read(HostOffset(0), MutableBuffers(MutableBytes(bytes)));
  }
}

Task<void> read_beside(Scope& scope, StorageAccess& access, uint32_t& turns) {
  scope.spawn(count_turns(Shard::current(), scope.token(), turns));
  Result<void> done = co_await read_often(access, 1000).result();
  scope.cancel();
  co_await std::move(done);
}

// A storage in memory answers at once: without turns nobody would ever read the signal.
TEST_F(InterruptibleTest, OthersOfTheShardHaveTheirTurnBetweenRequestsThatEndAtOnce) {
  uint32_t turns = 0;
  auto part = [&](StorageAccess& access) -> Task<void> {
    co_await with_scope(&read_beside, access, turns);
  };
  ASSERT_TRUE(with_storage(part).ok());
  EXPECT_GE(turns, 5u);
}

}  // namespace
}  // namespace ringdisk
