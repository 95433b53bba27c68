// SPDX-License-Identifier: Apache-2.0
// The queue of `mem`: copies in place, piece by piece. Nothing here can fail.
#include "nodes/mem.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "runtime/next_turn.h"

namespace ringdisk {
namespace {

class MemQueue final : public StorageQueue {
 public:
  MemQueue(std::shared_ptr<MemContent> content, Shard& shard)
      : content_(std::move(content)), shard_(shard) {}

  Task<void> read(HostOffset offset, MutableBuffers target) override;
  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options) override;
  Task<void> write_zeroes(HostRange range, ZeroOptions options) override;
  Task<void> discard(HostRange range) override;
  Task<void> flush() override;
  Task<StorageExtent> find_extent(HostRange range) override;
  Task<void> resize(ByteCount size) override;
  Task<void> allocate(HostRange range) override;

 private:
  const std::shared_ptr<MemContent> content_;
  Shard& shard_;
};

Task<void> MemQueue::read(HostOffset offset, MutableBuffers target) {
  for (size_t done = 0; done < target.size();) {
    if (done != 0) co_await NextTurn(shard_);
    size_t length = std::min(target.size() - done, kMemPieceBytes);
    target.slice(done, length).for_each([&](MutableBytes piece) {
      content_->memory().read(offset + ByteCount(done), piece);
      done += piece.size();
    });
  }
}

// As a file system answers for an offset that is too large for it.
Result<void> check_end(HostOffset end, const char* operation) {
  if (end.value() <= SparseMemory::kBytesMax) return {};
  return Error::from_errno(EFBIG, operation, end.value());
}

Task<void> MemQueue::write(HostOffset offset, ConstBuffers source, WriteOptions) {
  ByteCount total(source.size());
  co_await check_end(offset + total, "write");
  for (size_t done = 0; done < total.value();) {
    if (done != 0) co_await NextTurn(shard_);
    size_t length = std::min(source.size() - done, kMemPieceBytes);
    source.slice(done, length).for_each([&](Bytes piece) {
      content_->memory().write(offset + ByteCount(done), piece);
      done += piece.size();
    });
  }
  content_->grow_to(ByteCount((offset + total).value()));
}

Task<void> MemQueue::write_zeroes(HostRange range, ZeroOptions) {
  co_await check_end(range.end(), "write zeroes");
  content_->memory().zero(range);
  content_->grow_to(ByteCount(range.end().value()));
}

Task<void> MemQueue::discard(HostRange range) {
  content_->memory().zero(range);
  co_return;
}

Task<void> MemQueue::flush() { co_return; }

Task<StorageExtent> MemQueue::find_extent(HostRange range) {
  co_return content_->memory().find_extent(range);
}

Task<void> MemQueue::resize(ByteCount size) {
  co_await check_end(HostOffset(size.value()), "resize");
  content_->resize(size);
}

Task<void> MemQueue::allocate(HostRange range) {
  co_await check_end(range.end(), "allocate");
  content_->grow_to(ByteCount(range.end().value()));
}

StorageLimits limits_of(const MemOptions& options) {
  StorageLimits limits;
  limits.block_size = options.block_size;
  limits.memory_alignment = options.memory_alignment;
  limits.read_only = options.read_only;
  limits.grows = true;
  limits.grown_reads_zero = true;
  limits.fast_zero = true;
  limits.unmaps = true;
  return limits;
}

Task<std::unique_ptr<StorageNode>> open_mem(const World& world, Options options, OpenMode mode) {
  uint64_t size = co_await options.take_size("size", 0, world.diagnostics);
  uint64_t block_size = co_await options.take_size("block_size", 1, world.diagnostics);
  co_await options.check_all_taken("mem", world.diagnostics);
  if (!std::has_single_bit(block_size) || block_size > limits::kBlockSizeMax) {
    co_return world.diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                                        "block_size must be a power of two up to 64k");
  }
  if (size > SparseMemory::kBytesMax || size % block_size != 0) {
    co_return world.diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                                        "size must be a multiple of block_size and at most 4096T");
  }
  MemOptions mem_options;
  mem_options.block_size = static_cast<uint32_t>(block_size);
  mem_options.read_only = mode.read_only;
  std::unique_ptr<StorageNode> node = std::make_unique<MemNode>(
      "mem", world.diagnostics.add_node("mem"), ByteCount(size), mem_options);
  co_return std::move(node);
}

}  // namespace

void MemContent::grow_to(ByteCount size) {
  uint64_t before = size_.load(std::memory_order_relaxed);
  while (before < size.value() &&
         !size_.compare_exchange_weak(before, size.value(), std::memory_order_acq_rel,
                                      std::memory_order_relaxed)) {
  }
}

void MemContent::resize(ByteCount size) {
  uint64_t before = size_.exchange(size.value(), std::memory_order_acq_rel);
  if (size.value() < before) {
    memory_.zero(HostRange::between(HostOffset(size.value()), HostOffset(before)));
  }
}

MemNode::MemNode(std::string name, uint32_t id, ByteCount size, MemOptions options)
    : MemNode(std::move(name), id, std::make_shared<MemContent>(size), options) {}

MemNode::MemNode(std::string name, uint32_t id, std::shared_ptr<MemContent> content,
                 MemOptions options)
    : StorageNode(std::move(name), id), content_(std::move(content)), limits_(limits_of(options)) {
  CHECK(std::has_single_bit(options.block_size));
  CHECK_LE(content_->size().value(), SparseMemory::kBytesMax);
  CHECK_EQ(content_->size().value() % options.block_size, uint64_t{0});
}

Task<ByteCount> MemNode::allocated_size() {
  co_return ByteCount(content_->memory().allocated_bytes());
}

Task<std::unique_ptr<StorageQueue>> MemNode::open_queue(Shard& shard) {
  std::unique_ptr<StorageQueue> queue = std::make_unique<MemQueue>(content_, shard);
  co_return std::move(queue);
}

Task<void> MemNode::close() { co_return; }

StorageDriver mem_driver() {
  StorageDriver driver;
  driver.name = "mem";
  driver.words = {"size", "block_size"};
  driver.open = open_mem;
  return driver;
}

}  // namespace ringdisk
