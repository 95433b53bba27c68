// SPDX-License-Identifier: Apache-2.0
// StorageAccess: the comfortable face of a StorageQueue, one a shard: the funnel in front of a
// storage. Everyone above a driver calls this, byte by byte if need be: it checks range, permission
// and limits, pads what is smaller than the storage's block (under the node's BlockLock, so that
// two padded writes, or a padded and a whole one, never undo each other), splits what is too large,
// gives zeros (or the storage's error) beyond the end, and counts. An aligned request costs one
// check and no coroutine frame.
#pragma once

#include <cstdint>
#include <memory>

#include "async/task.h"
#include "block/block_lock.h"
#include "block/storage.h"

namespace ringdisk {

class Shard;

// Counts of one queue; this shard only, read by others as a hint.
struct StorageCounters {
  uint64_t reads = 0, writes = 0, zeroes = 0, discards = 0, flushes = 0;
  uint64_t bytes_read = 0, bytes_written = 0;
};

// A storage node with what its queues share. Made once per node when it enters a graph; outlives
// all StorageAccess.
struct SharedStorage {
  explicit SharedStorage(std::unique_ptr<StorageNode> storage_node)
      : node(std::move(storage_node)) {}
  const std::unique_ptr<StorageNode> node;
  BlockLock block_lock;
};

class StorageAccess {
 public:
  StorageAccess(SharedStorage& storage, std::unique_ptr<StorageQueue> queue, Shard& shard);

  // On the calling shard.
  static Task<std::unique_ptr<StorageAccess>> open(SharedStorage& storage, Shard& shard);

  const StorageLimits& limits() const { return limits_; }
  ByteCount size() const { return storage_.node->size(); }
  uint32_t node_id() const { return storage_.node->id(); }
  StorageNode& node() { return *storage_.node; }
  const StorageCounters& counters() const { return counters_; }

  // Any offset, length and alignment. Bytes beyond the end read as zeros, or fail with
  // limits().error_beyond_end.
  Task<void> read(HostOffset offset, MutableBuffers target);
  // Grows the storage where it can; kNoSpace beyond the end of one that can't.
  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options = {});
  Task<void> write_zeroes(HostRange range, ZeroOptions options = {});
  // Rounds inwards to whole blocks; may do nothing.
  Task<void> discard(HostRange range);
  Task<void> flush();
  Task<StorageExtent> find_extent(HostRange range);
  Task<void> resize(ByteCount size);
  Task<void> allocate(HostRange range);

 private:
  bool is_aligned(HostOffset offset, uint64_t length) const {
    return ((offset.value() | length) & (limits_.block_size - 1)) == 0;
  }
  template <class Buffers>
  bool is_direct(HostOffset offset, const Buffers& buffers) const;
  Result<void> admit(HostOffset offset, uint64_t length, const char* operation) const;
  Result<void> admit_write(HostOffset offset, uint64_t length, const char* operation) const;

  Task<void> read_padded(HostOffset offset, MutableBuffers target);
  Task<void> read_block_run(HostOffset offset, MutableBuffers target);
  Task<void> write_guarded(HostOffset offset, ConstBuffers source, WriteOptions options);
  Task<void> write_padded(HostOffset offset, ConstBuffers source, WriteOptions options);
  Task<void> write_block_run(HostOffset offset, ConstBuffers source, WriteOptions options);
  Task<void> zero_guarded(HostRange range, ZeroOptions options);
  Task<void> zero_with_edges(HostRange range, ZeroOptions options);
  Task<void> write_out_zeroes(HostRange range, bool fua);

  SharedStorage& storage_;
  const StorageLimits limits_;
  Shard& shard_;
  StorageCounters counters_;
  std::unique_ptr<StorageQueue> queue_;
};

}  // namespace ringdisk
