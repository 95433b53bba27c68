// SPDX-License-Identifier: Apache-2.0
// SimStorageQueue: one shard's requests to a simulated disk. Internal to sim_storage.
//
// The life of a change:   submitted ──delay──> applied (readers see it) ──delay──> completed
//                             └── fault ──> a part of it applied, or nothing ──> failed
#pragma once

#include <memory>

#include "block/storage.h"
#include "sim/sim_storage.h"

namespace ringdisk::sim {

class SimStorageQueue final : public StorageQueue {
 public:
  SimStorageQueue(SimStorageNode& node, Shard& shard);
  ~SimStorageQueue() override;

  Task<void> read(HostOffset offset, MutableBuffers target) override;
  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options) override;
  Task<void> write_zeroes(HostRange range, ZeroOptions options) override;
  Task<void> discard(HostRange range) override;
  Task<void> flush() override;
  Task<StorageExtent> find_extent(HostRange range) override;
  Task<void> resize(ByteCount size) override;
  Task<void> allocate(HostRange range) override;

 private:
  SimDisk& disk() { return node_.disk_; }
  bool fails(SimOperation operation);
  Result<void> failure(const char* operation, uint64_t offset);
  Task<void> delay();
  void check_range(HostRange range, bool changes) const;
  template <class Buffers>
  void check_memory(const Buffers& buffers) const;
  Result<void> check_space(const Change& change);
  Task<void> perform(Change change, SimOperation operation, const char* name);
  void fail_change(Change change, uint64_t number);
  void apply(const Change& change, uint64_t number);

  SimStorageNode& node_;
  Shard& shard_;
  uint64_t under_way_ = 0;
};

}  // namespace ringdisk::sim
