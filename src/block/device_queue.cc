// SPDX-License-Identifier: Apache-2.0
// The funnel: every request of a job or an export passes Funnel::…, is checked, counted, handed to
// Access, and its result is looked at on the way out. The sticky state of a node is set here alone.
#include "block/device_queue.h"

#include <algorithm>
#include <cerrno>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "block/access.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

class Funnel final : public DeviceQueue {
 public:
  Funnel(DeviceNode& node, std::unique_ptr<FormatQueue> format,
         std::unique_ptr<DeviceQueue> backing, Shard& shard)
      : node_(node),
        format_(std::move(format)),
        backing_(std::move(backing)),
        access_(node, *format_, backing_.get(), shard) {}

  DeviceNode& node() override { return node_; }
  const DeviceCounters& counters() const override { return counters_; }

  Task<void> read(GuestOffset offset, MutableBuffers target) override;
  Task<void> write(GuestOffset offset, ConstBuffers source, WriteOptions options) override;
  Task<void> write_compressed(GuestOffset offset, Bytes cluster, CompressOptions options) override;
  Task<void> write_zeroes(GuestRange range, ZeroOptions options) override;
  Task<void> discard(GuestRange range) override;
  Task<void> flush() override;
  Task<BlockStatus> block_status(GuestRange range, uint32_t depth_max) override;

 private:
  Result<void> admit(GuestOffset offset, uint64_t length, const char* operation) const;
  Result<void> admit_write(GuestOffset offset, uint64_t length, const char* operation) const;
  Result<void> admit_compressed(GuestOffset offset, uint64_t length) const;
  Result<void> settle(Result<void> result);
  Task<void> flush_format();

  DeviceNode& node_;
  std::unique_ptr<FormatQueue> format_;
  std::unique_ptr<DeviceQueue> backing_;
  Access access_;
  DeviceCounters counters_;
};

Result<void> Funnel::admit(GuestOffset offset, uint64_t length, const char* operation) const {
  const uint64_t size = node_.size().value();
  if (offset.value() <= size && length <= size - offset.value()) return {};
  return at_node(Error::of(ErrorKind::kInvalid, operation, offset.value()), node_.id());
}

Result<void> Funnel::admit_write(GuestOffset offset, uint64_t length, const char* operation) const {
  if (node_.is_read_only()) {
    return at_node(Error::of(ErrorKind::kDenied, operation, offset.value()), node_.id());
  }
  if (node_.is_broken()) {
    return at_node(Error::from_errno(node_.broken_errno(), operation, offset.value()), node_.id());
  }
  return admit(offset, length, operation);
}

// Exactly one cluster, or what the disk's end leaves of it.
Result<void> Funnel::admit_compressed(GuestOffset offset, uint64_t length) const {
  RETURN_IF_ERROR(admit_write(offset, length, "write compressed"));
  const FormatLimits& limits = node_.format().limits();
  if (!limits.compresses) {
    return at_node(Error::of(ErrorKind::kUnsupported, "write compressed", offset.value()),
                   node_.id());
  }
  const uint64_t cluster = limits.cluster_size.value();
  const uint64_t whole = std::min(cluster, node_.size().value() - offset.value());
  if (offset.is_aligned(cluster) && length == whole && length != 0) return {};
  return at_node(Error::of(ErrorKind::kInvalid, "write compressed", offset.value()), node_.id());
}

// On the way out: failures are counted and know their node.
Result<void> Funnel::settle(Result<void> result) {
  if (result.ok()) [[likely]]
    return result;
  ++counters_.failures;
  return at_node(result.error(), node_.id());
}

Task<void> Funnel::read(GuestOffset offset, MutableBuffers target) {
  ++counters_.reads;
  counters_.bytes_read += target.size();
  co_await admit(offset, target.size(), "read");
  if (target.size() > limits::kRequestBytesMax) {
    co_await fail(at_node(Error::of(ErrorKind::kLimit, "read", offset.value()), node_.id()));
  }
  if (target.empty()) co_return;
  Result<void> done = co_await access_.read(offset, target).result();
  co_await settle(std::move(done));
}

Task<void> Funnel::write(GuestOffset offset, ConstBuffers source, WriteOptions options) {
  ++counters_.writes;
  counters_.bytes_written += source.size();
  co_await admit_write(offset, source.size(), "write");
  if (source.size() > limits::kRequestBytesMax) {
    co_await fail(at_node(Error::of(ErrorKind::kLimit, "write", offset.value()), node_.id()));
  }
  // Where guest bytes are found without metadata the storage makes them durable; elsewhere a flush
  // makes both durable, so that the write itself need not.
  const bool needs_flush = options.fua && !node_.format().limits().maps_directly;
  options.fua = options.fua && !needs_flush;
  if (!source.empty()) {
    Result<void> done;
    if (node_.policy().detect_zeroes == DetectZeroes::kOff) [[likely]] {
      done = co_await access_.write(offset, source, options).result();
    } else {
      const bool may_unmap = node_.policy().detect_zeroes == DetectZeroes::kUnmap;
      done = co_await access_.write_detecting_zeroes(offset, source, options, may_unmap).result();
    }
    co_await settle(std::move(done));
  }
  if (needs_flush) co_await flush_format();
}

Task<void> Funnel::write_compressed(GuestOffset offset, Bytes cluster, CompressOptions options) {
  ++counters_.writes;
  ++counters_.compressed_writes;
  counters_.bytes_written += cluster.size();
  co_await admit_compressed(offset, cluster.size());
  Result<void> done = co_await access_.write_compressed(offset, cluster, options).result();
  co_await settle(std::move(done));
}

Task<void> Funnel::write_zeroes(GuestRange range, ZeroOptions options) {
  ++counters_.zeroes;
  co_await admit_write(range.offset, range.length.value(), "write zeroes");
  const bool needs_flush = options.fua && !node_.format().limits().maps_directly;
  options.fua = options.fua && !needs_flush;
  options.may_unmap = options.may_unmap && node_.policy().discards;
  if (!range.empty()) {
    Result<void> done = co_await access_.write_zeroes(range, options).result();
    co_await settle(std::move(done));
  }
  if (needs_flush) co_await flush_format();
}

Task<void> Funnel::discard(GuestRange range) {
  ++counters_.discards;
  co_await admit_write(range.offset, range.length.value(), "discard");
  if (range.empty() || !node_.policy().discards) co_return;
  Result<void> done = co_await access_.discard(range).result();
  co_await settle(std::move(done));
}

Task<void> Funnel::flush() {
  ++counters_.flushes;
  co_await flush_format();
}

// A failed flush may have lost pages that nobody can write again, so it is never retried into a
// success.
Task<void> Funnel::flush_format() {
  if (node_.is_read_only()) co_return;
  if (node_.is_broken()) {
    co_await fail(at_node(Error::from_errno(node_.broken_errno(), "flush"), node_.id()));
  }
  Result<void> done = co_await format_->flush().result();
  if (!done.ok()) node_.mark_broken(done.error());
  // Another queue's flush failed while this one was under way: what was lost may have been ours.
  if (done.ok() && node_.is_broken()) done = Error::from_errno(node_.broken_errno(), "flush");
  co_await settle(std::move(done));
}

Task<BlockStatus> Funnel::block_status(GuestRange range, uint32_t depth_max) {
  co_await admit(range.offset, range.length.value(), "block status");
  CHECK(!range.empty());
  Result<BlockStatus> status = co_await access_.block_status(range, depth_max).result();
  if (!status.ok()) {
    ++counters_.failures;
    co_return at_node(status.error(), node_.id());
  }
  CHECK(!status.value().length.is_zero());
  CHECK_LE(status.value().length, range.length);
  co_return std::move(status);
}

}  // namespace

DeviceNode::DeviceNode(std::string name, uint32_t id, std::unique_ptr<FormatNode> format,
                       std::shared_ptr<DeviceNode> backing, DevicePolicy policy)
    : name_(std::move(name)),
      id_(id),
      policy_(policy),
      format_(std::move(format)),
      backing_(std::move(backing)) {}

DeviceNode::~DeviceNode() = default;

Task<std::unique_ptr<DeviceQueue>> DeviceNode::open_queue(Shard& shard) {
  CHECK(shard.is_current());
  std::unique_ptr<DeviceQueue> below;
  if (backing_) below = co_await backing_->open_queue(shard);
  std::unique_ptr<FormatQueue> format = co_await format_->open_queue(shard);
  co_return std::make_unique<Funnel>(*this, std::move(format), std::move(below), shard);
}

Task<void> DeviceNode::close() {
  if (closed_) co_return;
  closed_ = true;
  Result<void> closed = co_await format_->close().result();
  // The last user of a backing image closes it, whether this one closed well or not. Who is not the
  // last lets go of it here, so that the last one is known by then.
  std::shared_ptr<DeviceNode> below = std::move(backing_);
  if (below && below.use_count() == 1) {
    Result<void> backing_closed = co_await below->close().result();
    if (closed.ok()) co_await std::move(backing_closed);
  }
  co_await std::move(closed);
}

void DeviceNode::mark_broken(const Error& cause) {
  int healthy = 0;
  broken_errno_.compare_exchange_strong(healthy, cause.errno_value, std::memory_order_acq_rel);
}

}  // namespace ringdisk
