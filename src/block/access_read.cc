// SPDX-License-Identifier: Apache-2.0
// The reading half of Access: mapping, splitting, descending, and what a stretch of the disk is.
#include <algorithm>
#include <array>

#include "base/limits.h"
#include "block/access.h"
#include "runtime/shard.h"

namespace ringdisk {

struct Access::ReadPiece {
  GuestOffset offset;
  Mapping mapping;
  MutableBuffers target;
};

Task<Mapping> Access::map(GuestRange range, MapPurpose purpose) {
  Mapping mapping;
  while (!format_.try_map(range, purpose, mapping)) co_await format_.load_map(range.offset);
  co_return std::move(mapping);
}

Task<void> Access::read(GuestOffset offset, MutableBuffers target) {
  GuestRange range(offset, ByteCount(target.size()));
  Mapping mapping;
  if (format_.try_map(range, MapPurpose::kRead, mapping) && mapping.kind == MappingKind::kData &&
      mapping.length == range.length) [[likely]] {
    // The pin is held until the bytes have moved.
    co_await format_.data_storage().read(mapping.host, target);
    co_return;
  }
  mapping.pin.release();
  co_await read_pieces(offset, target);
}

// Maps a handful of pieces, moves them side by side, goes on behind them.
Task<void> Access::read_pieces(GuestOffset offset, MutableBuffers target) {
  std::array<ReadPiece, limits::kPiecesInFlightMax> pieces;
  for (size_t done = 0; done < target.size();) {
    size_t count = 0;
    for (; count < pieces.size() && done < target.size(); ++count) {
      ReadPiece& piece = pieces[count];
      piece.offset = offset + ByteCount(done);
      GuestRange rest(piece.offset, ByteCount(target.size() - done));
      piece.mapping = co_await map(rest, MapPurpose::kRead);
      const auto length = static_cast<size_t>(piece.mapping.length.value());
      piece.target = target.slice(done, length);
      done += length;
    }
    auto read_one = [&](size_t i) {
      return read_piece(pieces[i].offset, pieces[i].mapping, pieces[i].target);
    };
    co_await when_all(count, read_one);
    for (size_t i = 0; i < count; ++i) pieces[i].mapping.pin.release();
  }
}

// For the case of a switch that has nothing to wait for.
static Task<void> no_more_to_do() { co_return; }

Task<void> Access::read_piece(GuestOffset offset, const Mapping& mapping, MutableBuffers target) {
  switch (mapping.kind) {
    case MappingKind::kData:
      return format_.data_storage().read(mapping.host, target);
    case MappingKind::kCompressed:
      return read_compressed_piece(offset, target);
    case MappingKind::kZero:
      fill_zero(target);
      return no_more_to_do();
    case MappingKind::kAbsent:
      return read_backing(offset, target);
  }
  UNREACHABLE("a mapping has four kinds");
}

// The backing image may be shorter than this one: beyond its end there are zeros.
Task<void> Access::read_backing(GuestOffset offset, MutableBuffers target) {
  const uint64_t end = backing_ ? backing_->node().size().value() : 0;
  const uint64_t there = offset.value() < end ? end - offset.value() : 0;
  const auto inside = static_cast<size_t>(std::min<uint64_t>(there, target.size()));
  fill_zero(target.slice(inside, target.size() - inside));
  if (inside != 0) co_await backing_->read(offset, target.slice(0, inside));
}

// One or more compressed clusters; `target` may begin and end within one.
Task<void> Access::read_compressed_piece(GuestOffset offset, MutableBuffers target) {
  const uint64_t cluster = node_.format().limits().cluster_size.value();
  Buffer bounce = co_await shard_.buffers().try_take(cluster);
  MutableBytes whole = bounce.first(cluster);
  for (size_t done = 0; done < target.size();) {
    GuestOffset at = offset + ByteCount(done);
    const auto lead = static_cast<size_t>(at.offset_in(cluster).value());
    const size_t piece = std::min<size_t>(target.size() - done, cluster - lead);
    co_await format_.read_compressed(at, whole);
    copy_to_buffers(whole.subspan(lead, piece), target.slice(done, piece));
    done += piece;
  }
}

// Block status

Task<BlockStatus> Access::block_status(GuestRange range, uint32_t depth_max) {
  Mapping mapping = co_await map(range, MapPurpose::kRead);
  BlockStatus status;
  status.length = mapping.length;
  status.present = true;
  switch (mapping.kind) {
    case MappingKind::kData:
      status = co_await status_of_data(mapping);
      break;
    case MappingKind::kCompressed:
      status.data = true;
      status.compressed = true;
      break;
    case MappingKind::kZero:
      status.zero = true;
      note_kept_place(mapping, status);
      break;
    case MappingKind::kAbsent:
      status = co_await status_of_absent(range, mapping, depth_max);
      break;
  }
  co_return status;
}

// A format that maps directly knows nothing of holes; its storage does. Elsewhere the storage is
// asked where it is worth it: clusters that were made without content (preallocation=metadata)
// would all be read for nothing.
Task<BlockStatus> Access::status_of_data(const Mapping& mapping) {
  BlockStatus status;
  status.length = mapping.length;
  status.present = true;
  status.data = true;
  status.host = mapping.host;
  status.storage = &format_.data_storage().node();
  const bool maps_directly = node_.format().limits().maps_directly;
  bool asks_storage = maps_directly;
  if (!maps_directly) asks_storage = co_await storage_has_holes();
  if (!asks_storage) co_return status;
  HostRange range(mapping.host, mapping.length);
  StorageExtent extent = co_await format_.data_storage().find_extent(range);
  status.length = extent.length;
  status.zero = extent.zero;
  status.data = !maps_directly || !extent.zero;
  co_return status;
}

// Whether the storage takes less space than it is long, by two clusters and by a tenth. Looked at
// once: what comes later is written, not preallocated.
Task<bool> Access::storage_has_holes() {
  if (!storage_has_holes_) {
    StorageNode& storage = format_.data_storage().node();
    const ByteCount allocated = co_await storage.allocated_size();
    const uint64_t cluster = node_.format().limits().cluster_size.value();
    const uint64_t taken = allocated.value() / cluster;
    const uint64_t all = storage.size().value() / cluster;
    storage_has_holes_ = all >= taken + 2 && all - taken >= all / 10;
  }
  co_return *storage_has_holes_;
}

void Access::note_kept_place(const Mapping& mapping, BlockStatus& status) {
  if (!mapping.has_kept_place) return;
  status.host = mapping.host;
  status.storage = &format_.data_storage().node();
}

Task<BlockStatus> Access::status_of_absent(GuestRange range, const Mapping& mapping,
                                           uint32_t depth_max) {
  BlockStatus status;
  status.length = mapping.length;
  if (!backing_) {
    status.zero = true;
    note_kept_place(mapping, status);
    co_return status;
  }
  if (depth_max == 0) co_return status;
  const GuestRange asked(range.offset, mapping.length);
  const GuestRange below = asked.intersection(GuestRange(GuestOffset(0), backing_->node().size()));
  if (below.empty()) {
    status.zero = true;
    note_kept_place(mapping, status);
    co_return status;
  }
  status = co_await backing_->block_status(below, depth_max - 1);
  ++status.depth;
  co_return status;
}

}  // namespace ringdisk
