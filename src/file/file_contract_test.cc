// SPDX-License-Identifier: Apache-2.0
// The contract of storages (sim/storage_contract.h), held by files in each way bytes reach them.
#include "file/file_node.h"
#include "file/temporary_file_for_test.h"
#include "sim/real_world.h"
#include "sim/storage_contract.h"

namespace ringdisk::file {
namespace {

Result<void> run_in(LoopKind loop, const std::function<Task<void>(const World& world)>& body) {
  sim::RealWorld world(loop, 3);
  auto root = [&](Shard&) { return body(world.world()); };
  return world.run(root);
}
Result<void> in_best(uint64_t, const std::function<Task<void>(const World& world)>& body) {
  return run_in(LoopKind::kBest, body);
}
Result<void> in_epoll(uint64_t, const std::function<Task<void>(const World& world)>& body) {
  return run_in(LoopKind::kEpoll, body);
}

// The file has no name any more once it is open, so nothing is left behind.
Task<std::unique_ptr<StorageNode>> open_new(const World& world, const char* directory,
                                            CacheMode cache) {
  TemporaryFile file(directory);
  Options options;
  options.set("filename", file.path());
  OpenMode mode;
  mode.cache = cache;
  StorageDriver driver = file_driver();
  co_return co_await driver.open(world, options, mode).result();
}
Task<std::unique_ptr<StorageNode>> in_memory(const World& world, ByteCount) {
  return open_new(world, kMemoryDirectory, CacheMode::kWriteback);
}
Task<std::unique_ptr<StorageNode>> on_disk(const World& world, ByteCount) {
  return open_new(world, kDiskDirectory, CacheMode::kWriteback);
}
Task<std::unique_ptr<StorageNode>> on_disk_direct(const World& world, ByteCount) {
  return open_new(world, kDiskDirectory, CacheMode::kNone);
}

RINGDISK_STORAGE_CONTRACT_IN(memory_file, &in_memory, &in_best);
RINGDISK_STORAGE_CONTRACT_IN(cached_file, &on_disk, &in_best);
RINGDISK_STORAGE_CONTRACT_IN(direct_file, &on_disk_direct, &in_best);
RINGDISK_STORAGE_CONTRACT_IN(memory_file_epoll, &in_memory, &in_epoll);
RINGDISK_STORAGE_CONTRACT_IN(cached_file_epoll, &on_disk, &in_epoll);
RINGDISK_STORAGE_CONTRACT_IN(direct_file_epoll, &on_disk_direct, &in_epoll);

}  // namespace
}  // namespace ringdisk::file
