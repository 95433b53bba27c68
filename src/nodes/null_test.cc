// SPDX-License-Identifier: Apache-2.0
// null keeps nothing but its size.
#include "nodes/null.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/limits.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using limits::kMiB;
using sim::SimWorld;

Task<void> write_then_read(Shard& shard, NullNode& node) {
  std::unique_ptr<StorageQueue> queue = co_await node.open_queue(shard);
  std::vector<std::byte> bytes(3 * kMiB + 1, std::byte{0x55});
  co_await queue->write(HostOffset(kMiB), ConstBuffers(Bytes(bytes)), WriteOptions());
  co_await queue->flush();
  co_await queue->read(HostOffset(kMiB), MutableBuffers(MutableBytes(bytes)));
  EXPECT_EQ(bytes, std::vector<std::byte>(bytes.size()));
  HostRange all(HostOffset(0), node.size());
  StorageExtent extent = co_await queue->find_extent(all);
  EXPECT_TRUE(extent.zero);
  EXPECT_EQ(extent.length, node.size());
}

TEST(NullNodeTest, ForgetsWhatIsWrittenButGrows) {
  SimWorld world;
  NullNode node("null", 1, ByteCount(0));
  auto body = [&node](Shard& shard) { return write_then_read(shard, node); };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_EQ(node.size().value(), 4 * kMiB + 1);
}

Task<void> open_by_options(SimWorld& world, uint64_t& size) {
  Options options = co_await Options::parse("size=3M", world.diagnostics());
  StorageDriver driver = null_driver();
  OpenMode mode;
  mode.read_only = true;
  std::unique_ptr<StorageNode> node = co_await driver.open(world.world(), options, mode);
  EXPECT_TRUE(node->limits().read_only);
  size = node->size().value();
}

TEST(NullDriverTest, OpensByOptions) {
  SimWorld world;
  uint64_t size = 0;
  auto body = [&](Shard&) { return open_by_options(world, size); };
  ASSERT_TRUE(world.run(body).ok());
  EXPECT_EQ(size, 3 * kMiB);
}

}  // namespace
}  // namespace ringdisk
