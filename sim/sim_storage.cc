// SPDX-License-Identifier: Apache-2.0
// The simulated medium and its node.
#include "sim/sim_storage.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "runtime/shard.h"
#include "sim/sim_storage_queue.h"

namespace ringdisk::sim {
namespace {

StorageLimits limits_of(const SimDiskOptions& options, bool read_only) {
  StorageLimits limits;
  limits.block_size = options.block_size;
  limits.memory_alignment = options.memory_alignment;
  limits.read_only = options.read_only || read_only;
  limits.grows = options.grows;
  limits.grown_reads_zero = options.grows && options.grown_reads_zero && !options.stale;
  limits.fast_zero = options.fast_zero;
  limits.unmaps = options.unmaps;
  return limits;
}

}  // namespace

SimDiskOptions SimDiskOptions::block_device(ByteCount size, uint32_t block_size) {
  SimDiskOptions options;
  options.size = size;
  options.block_size = block_size;
  options.memory_alignment = block_size;
  options.grows = false;
  options.grown_reads_zero = false;
  options.stale = true;
  return options;
}

SimDisk::SimDisk(SimDiskOptions options, uint64_t seed, CrashLog* log, SimFaults* faults)
    : options_(options),
      random_(seed),
      state_{SectorContent(options.stale), options.size.value()},
      log_(log),
      faults_(faults) {
  if (log_) log_number_ = log_->add_disk(state_);
}

SimDisk::SimDisk(const SimDisk& other, uint64_t event, uint64_t subset_seed, CrashLog* log,
                 SimFaults* faults)
    : options_(other.options_),
      random_(subset_seed),
      state_(other.log_->image_at(event, other.log_number_, subset_seed)),
      log_(log),
      faults_(faults) {
  options_.flush_lies = false;
  if (log_) log_number_ = log_->add_disk(state_);
}

SimDisk::~SimDisk() { CHECK_EQ(open_nodes_, 0u); }

void SimDisk::poke(uint64_t offset, Bytes source) {
  state_.content.write(offset, source);
  state_.size = std::max(state_.size, offset + source.size());
  if (log_) log_->replace_disk(log_number_, state_);
}

SimStorageNode::SimStorageNode(SimDisk& disk, std::string name, uint32_t id, bool read_only)
    : StorageNode(std::move(name), id), disk_(disk), limits_(limits_of(disk.options(), read_only)) {
  ++disk_.open_nodes_;
}

SimStorageNode::~SimStorageNode() {
  CHECK_EQ(queues_, 0u);
  --disk_.open_nodes_;
}

Task<ByteCount> SimStorageNode::allocated_size() {
  ByteCount bytes(disk_.written_bytes());
  co_return bytes;
}

Task<std::unique_ptr<StorageQueue>> SimStorageNode::open_queue(Shard& shard) {
  CHECK(!closed_);
  CHECK(shard.is_current());
  if (disk_.faults_ && disk_.faults_->next_fails(SimOperation::kOpenQueue)) {
    co_return at_node(Error::from_errno(disk_.faults_->errno_value, "open"), id());
  }
  std::unique_ptr<StorageQueue> queue = std::make_unique<SimStorageQueue>(*this, shard);
  co_return std::move(queue);
}

Task<void> SimStorageNode::close() {
  CHECK_EQ(queues_, 0u);
  CHECK(!closed_);
  closed_ = true;
  co_return;
}

}  // namespace ringdisk::sim
