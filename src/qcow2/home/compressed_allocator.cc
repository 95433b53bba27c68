// SPDX-License-Identifier: Apache-2.0
// Joining an open cluster, else beginning a new one.
#include "qcow2/home/compressed_allocator.h"

namespace ringdisk::qcow2 {

// One more stream, from `at` on, in that open cluster. False: the cluster has left meanwhile, or
// its refcount goes no higher. Count and place change in one step, so that nobody finds one without
// the other.
Task<bool> CompressedAllocator::join(HostOffset at, ByteCount size) {
  const ClusterIndex cluster = image_.geometry.host_cluster(at);
  co_await refcounts_.load(image_.geometry.refcount_block_of(cluster));
  if (!open_.contains(at)) co_return false;
  const uint64_t refcount = refcounts_.get(cluster);
  // Zero: a damaged image's other pointer has freed it.
  if (refcount == 0 || refcount == image_.geometry.refcount_max()) {
    open_.leave({cluster, 1});
    co_return false;
  }
  refcounts_.set(cluster, refcount + 1);
  open_.leave({cluster, 1});
  open_.add(at + size);
  co_return true;
}

// Where a stream begins that no open cluster has room for: at a new one, or in the open one just
// before that.
Task<std::optional<HostOffset>> CompressedAllocator::begin_cluster(ByteCount size) {
  const Geometry& geometry = image_.geometry;
  NewClusters made = co_await allocator_.allocate(1);
  const bool is_nameable =
      geometry.host_offset(made.run.first + 1) <= L2Entry::compressed_end(geometry);
  Result<HostOffset> begun = geometry.host_offset(made.run.first);
  if (is_nameable) begun = co_await extend_open(made.run.first, size).result();
  if (is_nameable && begun.ok()) co_return begun.value();
  co_await allocator_.take_back(made.run);
  if (!begun.ok()) co_return begun.error();
  co_return std::nullopt;
}

Task<HostOffset> CompressedAllocator::extend_open(ClusterIndex made, ByteCount size) {
  const std::optional<HostOffset> before = open_.find_before(made);
  if (before) {
    const bool joined = co_await join(*before, size);
    if (joined) co_return *before;
  }
  const HostOffset start = image_.geometry.host_offset(made);
  open_.add(start + size);
  co_return start;
}

// A place in an open cluster; nullopt: none has the room. Whoever cannot be joined has left, so
// this ends.
Task<std::optional<HostOffset>> CompressedAllocator::find_open(ByteCount size) {
  for (;;) {
    const std::optional<HostOffset> open = open_.find(size);
    if (!open) co_return std::nullopt;
    const bool joined = co_await join(*open, size);
    if (joined) co_return open;
  }
}

Task<std::optional<HostOffset>> CompressedAllocator::allocate(ByteCount size) {
  CHECK_GT(size.value(), uint64_t{0});
  CHECK_LT(size.value(), image_.geometry.cluster_size());
  MutexLock lock = co_await packing_.lock();
  std::optional<HostOffset> at = co_await find_open(size);
  if (!at) at = co_await begin_cluster(size);
  co_return at;
}

Task<void> CompressedAllocator::take_back(HostOffset at, ByteCount size) {
  const ClusterIndex first = image_.geometry.host_cluster(at);
  const ClusterIndex last = image_.geometry.host_cluster(at + size - ByteCount(1));
  // Before anything is counted down: no stream joins a cluster that may become free.
  open_.leave({first, last - first + 1});
  for (uint64_t i = 0; i <= last - first; ++i) co_await take_back_one(first + i);
}

Task<void> CompressedAllocator::take_back_one(ClusterIndex cluster) {
  co_await refcounts_.load(image_.geometry.refcount_block_of(cluster));
  const uint64_t refcount = refcounts_.get(cluster);
  if (refcount > 1) {
    refcounts_.set(cluster, refcount - 1);
    co_return;
  }
  const ClusterRun alone{cluster, 1};
  co_await allocator_.take_back(alone);
}

}  // namespace ringdisk::qcow2
