// SPDX-License-Identifier: Apache-2.0
// The view on real threads: shards that write, read and help each other over one storage. The
// thread sanitizer looks at the cipher's shared state, at rings and at completions.
#include <gtest/gtest.h>

#include <vector>

#include "async/scope.h"
#include "base/random.h"
#include "luks/view.h"
#include "nodes/mem.h"
#include "sim/real_world.h"

namespace ringdisk::luks {
namespace {

constexpr uint64_t kShareBytes = 256 << 10;

std::unique_ptr<SharedStorage> open_view(const World& world, const char* spec, size_t key_bytes,
                                         CpuFeatures features) {
  std::vector<std::byte> key(key_bytes);
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
  LuksViewOptions options;
  options.cipher = make_sector_cipher(CipherSpec::parse(spec).value(), key, 512, features).value();
  options.shards = world.shards;
  options.ns_per_byte = {10, 10};  // so that others help with little already
  auto child = std::make_unique<SharedStorage>(
      std::make_unique<MemNode>("mem", 1, ByteCount(4 * kShareBytes)));
  return std::make_unique<SharedStorage>(std::make_unique<LuksView>(std::move(child), options));
}

Task<void> write_and_read(StorageAccess& access, uint64_t offset, uint64_t seed) {
  Random random(seed);
  std::vector<std::byte> bytes(16384 + 100), read(bytes.size());
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
  co_await access.write(HostOffset(offset), ConstBuffers(Bytes(bytes)));
  co_await access.read(HostOffset(offset), MutableBuffers(MutableBytes(read)));
  EXPECT_TRUE(read == bytes) << "at " << offset;
}

// Each shard has a stretch of its own; the last sector of each write is shared with the next.
Task<void> work_on_share(Shard& shard, SharedStorage& view) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(view, shard);
  for (uint64_t round = 0; round < 3; ++round) {
    auto one = [&](size_t i) {
      const uint64_t offset = shard.index() * kShareBytes + i * (16384 + 100);
      return write_and_read(*access, offset, round * 100 + i);
    };
    co_await when_all(15, one);
  }
}

struct Case {
  const char* spec;
  size_t key_bytes;
  bool has_kernel;
};

TEST(LuksViewThreadsTest, ShardsWriteReadAndHelpEachOther) {
  for (const Case& tried : {Case{"aes-xts-plain64", 64, true}, Case{"aes-xts-plain64", 64, false},
                            Case{"aes-cbc-essiv:sha256", 32, false}}) {
    for (LoopKind loop : {LoopKind::kUring, LoopKind::kEpoll}) {
      sim::RealWorld world(loop, 3);
      if (!world.is_started()) continue;
      const CpuFeatures features = tried.has_kernel ? CpuFeatures::detect() : CpuFeatures();
      std::unique_ptr<SharedStorage> view =
          open_view(world.world(), tried.spec, tried.key_bytes, features);
      auto work = [&view](Shard& shard) { return work_on_share(shard, *view); };
      EXPECT_TRUE(world.run_on_all(work).ok());
      auto close = [&view](Shard&) { return view->node->close(); };
      EXPECT_TRUE(world.run(close).ok());
    }
  }
}

}  // namespace
}  // namespace ringdisk::luks
