// SPDX-License-Identifier: Apache-2.0
// The queue of a view.
#include "luks/view.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "base/diagnostics.h"
#include "base/limits.h"
#include "luks/cipher_work.h"
#include "runtime/calibration.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::luks {
namespace {

// What is enciphered before it is written, so that it is still in the cache then.
constexpr size_t kPieceBytes = 256 << 10;
static_assert(kPieceBytes % kSectorSizeMax == 0 && kPieceBytes <= limits::kRequestBytesMax);

class LuksQueue final : public StorageQueue {
 public:
  LuksQueue(const LuksView& view, const LuksViewOptions& options, Offload* offload,
            std::unique_ptr<StorageAccess> child, Shard& shard)
      : view_(view),
        options_(options),
        child_(std::move(child)),
        shard_(shard),
        reads_(view.cipher(), offload, options.ns_per_byte.decrypt, shard),
        writes_(view.cipher(), offload, options.ns_per_byte.encrypt, shard) {}

  Task<void> read(HostOffset offset, MutableBuffers target) override;
  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options) override;
  Task<void> write_zeroes(HostRange range, ZeroOptions options) override;
  Task<void> discard(HostRange range) override;
  Task<void> flush() override { return child_->flush(); }
  Task<StorageExtent> find_extent(HostRange range) override;
  Task<void> resize(ByteCount size) override;
  Task<void> allocate(HostRange range) override;

 private:
  HostOffset below(HostOffset offset) const { return offset + options_.payload_offset; }
  uint64_t number_of(HostOffset offset) const {
    return options_.iv_offset + offset.value() / kSectorNumberBytes;
  }
  Result<void> check_is_there(HostOffset offset, size_t length) const;
  Result<void> at_view(Result<void> done, HostOffset offset) const;
  Result<void> compute(CipherPiece piece, HostOffset offset) const {
    return at_view(piece.compute(view_.cipher()), offset);
  }
  Task<void> write_piece(HostOffset offset, ConstBuffers source, WriteOptions options);
  Task<void> write_pieces(HostOffset offset, ConstBuffers source, WriteOptions options);

  const LuksView& view_;
  const LuksViewOptions& options_;
  const std::unique_ptr<StorageAccess> child_;
  Shard& shard_;
  CipherWork reads_, writes_;
};

Result<void> LuksQueue::at_view(Result<void> done, HostOffset offset) const {
  if (done.ok()) [[likely]]
    return done;
  Error error = at_node(done.error(), view_.id());
  error.offset = offset.value();
  return error;
}

// Beyond its end the child would give zeros, and those would be deciphered to garbage: the storage
// is shorter than the header says, or somebody has cut it behind our back.
Result<void> LuksQueue::check_is_there(HostOffset offset, size_t length) const {
  const uint64_t end = std::min(offset.value() + length, view_.size().value());
  if (below(HostOffset(end)).value() <= child_->size().value()) [[likely]]
    return {};
  return at_view(Error::of(ErrorKind::kCorrupt, "read"), offset);
}

Task<void> LuksQueue::read(HostOffset offset, MutableBuffers target) {
  co_await check_is_there(offset, target.size());
  co_await child_->read(below(offset), target);
  const CipherPiece piece = CipherPiece::decrypting(number_of(offset), target);
  if (reads_.is_small(piece.size())) {
    co_await compute(piece, offset);
  } else {
    Result<void> done = co_await reads_.run(piece).result();
    co_await at_view(std::move(done), offset);
  }
}

Task<void> LuksQueue::write(HostOffset offset, ConstBuffers source, WriteOptions options) {
  if (source.size() <= kPieceBytes) return write_piece(offset, source, options);
  return write_pieces(offset, source, options);
}

Task<void> LuksQueue::write_pieces(HostOffset offset, ConstBuffers source, WriteOptions options) {
  for (size_t done = 0; done < source.size(); done += kPieceBytes) {
    const size_t length = std::min(kPieceBytes, source.size() - done);
    co_await write_piece(offset + ByteCount(done), source.slice(done, length), options);
  }
}

Task<void> LuksQueue::write_piece(HostOffset offset, ConstBuffers source, WriteOptions options) {
  Buffer buffer = shard_.buffers().take(source.size());
  const MutableBytes ciphered = buffer.first(source.size());
  const CipherPiece piece = CipherPiece::encrypting(number_of(offset), source, ciphered);
  if (writes_.is_small(piece.size())) {
    co_await compute(piece, offset);
  } else {
    Result<void> done = co_await writes_.run(piece).result();
    co_await at_view(std::move(done), offset);
  }
  co_await child_->write(below(offset), ConstBuffers(Bytes(ciphered)), options);
}

// Zeros look like all other bytes from outside, so they cost as much.
Task<void> LuksQueue::write_zeroes(HostRange range, ZeroOptions options) {
  if (options.fast_only) {
    const Error error = Error::of(ErrorKind::kUnsupported, "write zeroes", range.offset.value());
    co_await fail(at_node(error, view_.id()));
  }
  const size_t largest = static_cast<size_t>(std::min<uint64_t>(kPieceBytes, range.length.value()));
  Buffer zeroes = shard_.buffers().take(largest);
  fill_zero(zeroes.first(largest));
  WriteOptions durable;
  durable.fua = options.fua;
  for (HostOffset at = range.offset; at < range.end();) {
    if (at != range.offset) co_await NextTurn(shard_);
    const ByteCount length = std::min(ByteCount(largest), range.end() - at);
    const Bytes piece = zeroes.first(static_cast<size_t>(length.value()));
    co_await write_piece(at, ConstBuffers(piece), durable);
    at += length;
  }
}

Task<void> LuksQueue::discard(HostRange range) {
  if (!options_.allow_discards) co_return;
  const HostRange there(below(range.offset), range.length);
  co_await child_->discard(there);
}

// A hole below is no zeros up here.
Task<StorageExtent> LuksQueue::find_extent(HostRange range) {
  StorageExtent extent;
  extent.length = range.length;
  co_return extent;
}

Task<void> LuksQueue::resize(ByteCount size) {
  const HostOffset end = HostOffset(size.value()).align_up(view_.cipher().sector_size());
  const ByteCount whole(below(end).value());
  co_await child_->resize(whole);
}

// Space that is added would not read as zeros, so only what is there already can get some.
Task<void> LuksQueue::allocate(HostRange range) {
  if (range.end().value() > view_.size().value()) {
    const Error error = Error::of(ErrorKind::kUnsupported, "allocate", range.offset.value());
    co_await fail(at_node(error, view_.id()));
  }
  const HostRange there(below(range.offset), range.length);
  co_await child_->allocate(there);
}

StorageLimits limits_over(const StorageLimits& child, const LuksViewOptions& options,
                          bool is_borrowed) {
  StorageLimits limits = child;
  const uint64_t offset = options.payload_offset.value();
  // A payload that begins within a block of the child is padded below; there is no block to match.
  const bool is_aligned = offset % child.block_size == 0;
  limits.block_size = options.cipher->sector_size();
  // Others write to a borrowed child, within the same block too: only the lock in front of the
  // child, which all of them take, may pad to it.
  if (is_aligned && !is_borrowed) limits.block_size = std::max(limits.block_size, child.block_size);
  limits.grows = child.grows && !options.payload_size;
  limits.grown_reads_zero = false;
  limits.fast_zero = false;
  limits.unmaps = child.unmaps && options.allow_discards;
  limits.error_beyond_end = options.error_beyond_end;
  return limits;
}

std::unique_ptr<Offload> offload_for(const LuksViewOptions& options) {
  if (options.shards.size() < 2 || options.ns_per_byte.decrypt <= 0) return nullptr;
  return std::make_unique<Offload>(options.shards);
}

}  // namespace

CipherTimes measure_cipher(const SectorCipher& cipher, const Clock& clock) {
  constexpr size_t kBytes = 16384;  // 300 us at 0.05 GB/s, the slowest there is
  std::vector<std::byte> memory(kBytes);
  auto ns_per_byte = [&](auto work) {
    return static_cast<double>(measure_quickest(3, clock, work).count()) / double{kBytes};
  };
  CipherTimes times;
  times.decrypt = ns_per_byte([&] { return cipher.decrypt(0, memory, memory).ok(); });
  times.encrypt = ns_per_byte([&] { return cipher.encrypt(0, memory, memory).ok(); });
  return times;
}

LuksView::LuksView(std::unique_ptr<SharedStorage> child, LuksViewOptions options)
    : StorageNode(child->node->name(), child->node->id()),
      owned_(std::move(child)),
      child_(*owned_),
      options_(std::move(options)),
      limits_(limits_over(child_.node->limits(), options_, false)),
      offload_(offload_for(options_)) {
  CHECK_EQ(options_.payload_offset.value() % kSectorNumberBytes, uint64_t{0});
  CHECK_LE(options_.payload_offset.value(), kOffsetMax);
}

LuksView::LuksView(SharedStorage& child, LuksViewOptions options)
    : StorageNode(child.node->name(), child.node->id()),
      child_(child),
      options_(std::move(options)),
      limits_(limits_over(child_.node->limits(), options_, true)),
      offload_(offload_for(options_)) {
  CHECK_EQ(options_.payload_offset.value() % kSectorNumberBytes, uint64_t{0});
  CHECK_LE(options_.payload_offset.value(), kOffsetMax);
}

ByteCount LuksView::size() const {
  if (options_.payload_size) return *options_.payload_size;
  const uint64_t whole = child_.node->size().value();
  const uint64_t offset = options_.payload_offset.value();
  if (whole <= offset) return ByteCount(0);
  return ByteCount(HostOffset(whole - offset).align_down(cipher().sector_size()).value());
}

Task<std::unique_ptr<StorageQueue>> LuksView::open_queue(Shard& shard) {
  std::unique_ptr<StorageAccess> below = co_await StorageAccess::open(child_, shard);
  std::unique_ptr<StorageQueue> queue =
      std::make_unique<LuksQueue>(*this, options_, offload_.get(), std::move(below), shard);
  co_return std::move(queue);
}

Task<void> LuksView::close() {
  if (offload_) co_await offload_->stop();
  if (owned_) co_await owned_->node->close();
}

}  // namespace ringdisk::luks
