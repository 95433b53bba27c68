// SPDX-License-Identifier: Apache-2.0
// The queue of `null`.
#include "nodes/null.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "runtime/next_turn.h"

namespace ringdisk {
namespace {

// Filling a megabyte with zeros takes 30 to 100 us: then others have their turn.
constexpr size_t kPieceBytes = size_t{1} << 20;

class NullQueue final : public StorageQueue {
 public:
  NullQueue(NullNode& node, Shard& shard) : node_(node), shard_(shard) {}

  Task<void> read(HostOffset, MutableBuffers target) override {
    for (size_t done = 0; done < target.size();) {
      if (done != 0) co_await NextTurn(shard_);
      size_t length = std::min(target.size() - done, kPieceBytes);
      fill_zero(target.slice(done, length));
      done += length;
    }
  }
  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions) override {
    node_.grow_to(offset + ByteCount(source.size()));
    co_return;
  }
  Task<void> write_zeroes(HostRange range, ZeroOptions) override {
    node_.grow_to(range.end());
    co_return;
  }
  Task<void> discard(HostRange) override { co_return; }
  Task<void> flush() override { co_return; }
  Task<StorageExtent> find_extent(HostRange range) override {
    StorageExtent extent;
    extent.length = range.length;
    extent.zero = true;
    co_return extent;
  }
  Task<void> resize(ByteCount size) override {
    node_.resize(size);
    co_return;
  }
  Task<void> allocate(HostRange range) override {
    node_.grow_to(range.end());
    co_return;
  }

 private:
  NullNode& node_;
  Shard& shard_;
};

StorageLimits limits_of_null(bool read_only) {
  StorageLimits limits;
  limits.read_only = read_only;
  limits.grows = true;
  limits.grown_reads_zero = true;
  limits.fast_zero = true;
  limits.unmaps = true;
  return limits;
}

Task<std::unique_ptr<StorageNode>> open_null(const World& world, Options options, OpenMode mode) {
  uint64_t size = co_await options.take_size("size", limits::kGiB, world.diagnostics);
  co_await options.check_all_taken("null", world.diagnostics);
  std::unique_ptr<StorageNode> node = std::make_unique<NullNode>(
      "null", world.diagnostics.add_node("null"), ByteCount(size), mode.read_only);
  co_return std::move(node);
}

}  // namespace

NullNode::NullNode(std::string name, uint32_t id, ByteCount size, bool read_only)
    : StorageNode(std::move(name), id), limits_(limits_of_null(read_only)), size_(size.value()) {}

void NullNode::grow_to(HostOffset end) {
  uint64_t before = size_.load(std::memory_order_relaxed);
  while (before < end.value() &&
         !size_.compare_exchange_weak(before, end.value(), std::memory_order_acq_rel,
                                      std::memory_order_relaxed)) {
  }
}

Task<ByteCount> NullNode::allocated_size() { co_return ByteCount(0); }

Task<std::unique_ptr<StorageQueue>> NullNode::open_queue(Shard& shard) {
  std::unique_ptr<StorageQueue> queue = std::make_unique<NullQueue>(*this, shard);
  co_return std::move(queue);
}

Task<void> NullNode::close() { co_return; }

StorageDriver null_driver() {
  StorageDriver driver;
  driver.name = "null";
  driver.words = {"size"};
  driver.open = open_null;
  return driver;
}

}  // namespace ringdisk
