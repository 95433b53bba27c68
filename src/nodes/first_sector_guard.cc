// SPDX-License-Identifier: Apache-2.0
// What the first sector would be after a write, and the refusal.
#include "nodes/first_sector_guard.h"

#include <algorithm>
#include <string>

#include "base/diagnostics.h"
#include "nodes/format_magic.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr uint64_t kGuarded = kFormatMagicBytes;

class GuardQueue final : public FilterQueue {
 public:
  GuardQueue(std::unique_ptr<StorageQueue> child, const StorageNode& node, BlockLock& lock,
             Diagnostics& diagnostics, Shard& shard)
      : FilterQueue(std::move(child)),
        node_(node),
        lock_(lock),
        diagnostics_(diagnostics),
        shard_(shard) {}

  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options) override {
    if (offset.value() >= kGuarded) [[likely]]
      return child().write(offset, source, options);
    return write_first(offset, source, options);
  }
  Task<void> write_zeroes(HostRange range, ZeroOptions options) override {
    if (range.offset.value() >= kGuarded) return child().write_zeroes(range, options);
    return zero_first(range, options);
  }
  Task<void> discard(HostRange range) override;

 private:
  Task<void> write_first(HostOffset offset, ConstBuffers source, WriteOptions options);
  Task<void> zero_first(HostRange range, ZeroOptions options);
  Task<void> read_sector(MutableBytes sector);
  Result<void> check(Bytes sector, const char* operation) const;

  const StorageNode& node_;
  BlockLock& lock_;
  Diagnostics& diagnostics_;
  Shard& shard_;
};

HostRange guarded_range() { return HostRange(HostOffset(0), ByteCount(kGuarded)); }

// What there is of the first sector; zeros behind the storage's end.
Task<void> GuardQueue::read_sector(MutableBytes sector) {
  fill_zero(sector);
  const uint64_t block = node_.limits().block_size;
  const uint64_t end = (node_.size().value() + block - 1) / block * block;
  if (end == 0) co_return;
  // Whole blocks: the buffer has room for the largest.
  const uint64_t wanted = std::max<uint64_t>(kGuarded, block);
  Buffer whole = shard_.buffers().take(wanted);
  const auto there = static_cast<size_t>(std::min(end, wanted));
  co_await child().read(HostOffset(0), MutableBuffers(whole.first(there)));
  const size_t used = std::min<size_t>(there, kGuarded);
  copy_bytes(whole.first(used), sector.first(used));
}

Result<void> GuardQueue::check(Bytes sector, const char* operation) const {
  const std::string_view format = announced_format(sector);
  if (format.empty()) return {};
  std::string text("refused to let a disk of unknown format become a ");
  text += format;
  text += " image by what is written to it; open it with -f raw to allow that";
  return diagnostics_.explain(Error::of(ErrorKind::kDenied, operation, 0), node_.id(),
                              std::move(text));
}

Task<void> GuardQueue::write_first(HostOffset offset, ConstBuffers source, WriteOptions options) {
  BlockGuard guard(lock_, guarded_range(), shard_);
  co_await guard.acquired();
  Buffer buffer = shard_.buffers().take(kGuarded);
  MutableBytes sector = buffer.first(kGuarded);
  const auto begin = static_cast<size_t>(offset.value());
  const size_t length = std::min<size_t>(source.size(), kGuarded - begin);
  if (length < kGuarded) co_await read_sector(sector);
  copy_from_buffers(source.slice(0, length), sector.subspan(begin, length));
  co_await check(sector, "write");
  co_await child().write(offset, source, options);
}

Task<void> GuardQueue::zero_first(HostRange range, ZeroOptions options) {
  BlockGuard guard(lock_, guarded_range(), shard_);
  co_await guard.acquired();
  HostRange inside = range.intersection(guarded_range());
  if (inside.length.value() < kGuarded) {
    Buffer buffer = shard_.buffers().take(kGuarded);
    MutableBytes sector = buffer.first(kGuarded);
    co_await read_sector(sector);
    fill_zero(sector.subspan(inside.offset.value(), inside.length.value()));
    co_await check(sector, "write zeroes");
  }
  co_await child().write_zeroes(range, options);
}

Task<void> GuardQueue::discard(HostRange range) {
  const HostOffset begin(std::max<uint64_t>(kGuarded, node_.limits().block_size));
  if (range.offset < begin) {
    if (range.end() <= begin) co_return;
    range = HostRange::between(begin, range.end());
  }
  co_await child().discard(range);
}

}  // namespace

Task<std::unique_ptr<StorageQueue>> FirstSectorGuardNode::open_queue(Shard& shard) {
  std::unique_ptr<StorageQueue> below = co_await child().open_queue(shard);
  std::unique_ptr<StorageQueue> queue =
      std::make_unique<GuardQueue>(std::move(below), child(), first_sector_, diagnostics_, shard);
  co_return std::move(queue);
}

}  // namespace ringdisk
