// SPDX-License-Identifier: Apache-2.0
// The writing half of Access. A write into clusters that are there goes in place, pieces side by
// side. A write elsewhere:
//
//   cover:    |<------------- cluster(s) of the allocation ------------->|
//             [ head: old content ][ request: the write ][ tail: old content ]
//   one write of the three together, or of the request alone where head and tail are zero and the
//   place reads as zeros; what other writes of this shard bring meanwhile goes along
//   (joined_writes.h)
#include <algorithm>
#include <array>
#include <vector>

#include "async/yield.h"
#include "base/limits.h"
#include "block/access.h"
#include "codec/zero_detect.h"
#include "runtime/shard.h"

namespace ringdisk {

struct Access::WritePiece {
  Mapping mapping;
  ConstBuffers source;
};

Task<void> Access::write(GuestOffset offset, ConstBuffers source, WriteOptions options) {
  GuestRange range(offset, ByteCount(source.size()));
  Mapping mapping;
  if (format_.try_map(range, MapPurpose::kWrite, mapping) && mapping.kind == MappingKind::kData &&
      mapping.length == range.length) [[likely]] {
    // The pin is held until the bytes have moved.
    co_await format_.data_storage().write(mapping.host, source, options);
    co_return;
  }
  mapping.pin.release();
  co_await write_pieces(offset, source, options);
}

Task<void> Access::write_pieces(GuestOffset offset, ConstBuffers source, WriteOptions options) {
  for (size_t done = 0; done < source.size();) {
    GuestOffset at = offset + ByteCount(done);
    ConstBuffers rest = source.slice(done, source.size() - done);
    size_t written = co_await write_in_place(at, rest, options);
    if (written == 0) written = co_await write_elsewhere(at, rest);
    done += written;
  }
}

// The leading pieces that may be written where they are, side by side. Gives the bytes written, 0
// when the first piece may not.
Task<size_t> Access::write_in_place(GuestOffset offset, ConstBuffers source, WriteOptions options) {
  std::array<WritePiece, limits::kPiecesInFlightMax> pieces;
  size_t count = 0, done = 0;
  while (count < pieces.size() && done < source.size()) {
    GuestRange rest(offset + ByteCount(done), ByteCount(source.size() - done));
    WritePiece& piece = pieces[count];
    piece.mapping = co_await map(rest, MapPurpose::kWrite);
    if (piece.mapping.kind != MappingKind::kData) break;
    const auto length = static_cast<size_t>(piece.mapping.length.value());
    piece.source = source.slice(done, length);
    done += length;
    ++count;
  }
  auto write_one = [&](size_t i) {
    return format_.data_storage().write(pieces[i].mapping.host, pieces[i].source, options);
  };
  co_await when_all(count, write_one);
  co_return done;
}

// A prefix of the write into a new place. Gives its length; 0: another request has allocated it
// meanwhile, map again.
Task<size_t> Access::write_elsewhere(GuestOffset offset, ConstBuffers source) {
  const GuestRange range(offset, ByteCount(source.size()));
  ByteCount joined;
  if (JoinedWrites::Leader* leader = joined_writes_.find(range, joined)) {
    const auto length = static_cast<size_t>(joined.value());
    JoinedWrites::Follower follower(*leader, GuestRange(offset, joined), source.slice(0, length));
    co_await follower.wait();
    co_return follower.is_written() ? length : 0;
  }
  // Of a subcluster that this write does not touch nobody says that it is there.
  JoinedWrites::Leader leader(joined_writes_, range,
                              range.widened(node_.format().limits().granularity().value()));
  std::optional<Allocation> allocation = co_await format_.begin_allocation(range);
  if (!allocation) co_return size_t{0};
  const auto length = static_cast<size_t>(allocation->request.length.value());
  Result<void> filled =
      co_await fill_allocation(*allocation, source.slice(0, length), leader).result();
  if (!filled.ok()) {
    Result<void> abandoned = co_await format_.abandon_allocation(*allocation).result();
    static_cast<void>(abandoned.ok());  // what failed first is what is reported
    co_return filled.error();
  }
  allocation->changed = leader.all_written(allocation->request);
  co_await format_.finish_allocation(*allocation);
  leader.succeed();
  co_return length;
}

Task<void> Access::fill_allocation(const Allocation& allocation, ConstBuffers source,
                                   JoinedWrites::Leader& leader) {
  const GuestRange& cover = allocation.cover;
  const GuestRange& request = allocation.request;
  const auto head = GuestRange::between(cover.offset, request.offset);
  const auto tail = GuestRange::between(request.end(), cover.end());
  StorageAccess& storage = format_.data_storage();
  const HostOffset request_host = allocation.host + head.length;

  if (allocation.reads_zero && is_known_zero(head) && is_known_zero(tail)) {
    leader.go_alone();
    co_await storage.write(request_host, source);
    co_return;
  }
  const auto head_size = static_cast<size_t>(head.length.value());
  const auto tail_size = static_cast<size_t>(tail.length.value());
  Buffer edges = co_await shard_.buffers().try_take(head_size + tail_size);
  MutableBytes head_bytes = edges.bytes().first(head_size);
  MutableBytes tail_bytes = edges.bytes().subspan(head_size, tail_size);
  co_await read_edge(head, head_bytes);
  co_await read_edge(tail, tail_bytes);
  co_await Yield();  // the other requests of a batch come first, and may go along
  leader.take_along(head, head_bytes, tail, tail_bytes);
  const bool keep_head = !(allocation.reads_zero && is_zero(head_bytes));
  const bool keep_tail = !(allocation.reads_zero && is_zero(tail_bytes));
  std::vector<iovec> parts;
  if (keep_head && head_size != 0) parts.push_back({head_bytes.data(), head_size});
  source.for_each([&](Bytes piece) {
    parts.push_back({const_cast<std::byte*>(piece.data()), piece.size()});
  });
  if (keep_tail && tail_size != 0) parts.push_back({tail_bytes.data(), tail_size});
  HostOffset start = keep_head ? allocation.host : request_host;
  co_await storage.write(start, ConstBuffers(parts.data(), parts.size()));
}

// Old content around a write: what the guest sees there now; zeros beyond the disk's end.
Task<void> Access::read_edge(GuestRange edge, MutableBytes target) {
  const GuestRange inside = edge.intersection(GuestRange(GuestOffset(0), node_.size()));
  const auto length = static_cast<size_t>(inside.length.value());
  fill_zero(target.subspan(length));
  if (length != 0) co_await read(inside.offset, MutableBuffers(target.first(length)));
}

// Whether `range` reads as zeros, as far as can be told without I/O.
bool Access::is_known_zero(GuestRange range) {
  range = range.intersection(GuestRange(GuestOffset(0), node_.size()));
  while (!range.empty()) {
    Mapping mapping;
    if (!format_.try_map(range, MapPurpose::kRead, mapping)) return false;
    bool zero = mapping.kind == MappingKind::kZero ||
                (mapping.kind == MappingKind::kAbsent &&
                 (!backing_ || range.offset.value() >= backing_->node().size().value()));
    if (!zero) return false;
    range = GuestRange::between(range.offset + mapping.length, range.end());
  }
  return true;
}

// A cluster that does not shrink is one like any other.
Task<void> Access::write_compressed(GuestOffset offset, Bytes cluster, CompressOptions options) {
  const bool is_compressed = co_await format_.write_compressed(offset, cluster, options);
  if (!is_compressed) co_await write(offset, ConstBuffers(cluster), WriteOptions());
}

// Zeroes and discards

// The units that lie wholly in `range`; the disk's last one counts as whole up to the disk's end.
GuestRange Access::whole_units(GuestRange range, ByteCount unit) const {
  GuestRange units = range.narrowed(unit.value());
  const GuestOffset disk_end(node_.size().value());
  if (range.end() != disk_end) return units;
  GuestOffset begin = range.offset.align_up(unit.value());
  return begin < disk_end ? GuestRange::between(begin, disk_end) : units;
}

Task<void> Access::write_zeroes(GuestRange range, ZeroOptions options) {
  if (node_.format().limits().maps_directly) {
    co_await zero_directly(range, options);
    co_return;
  }
  GuestRange clusters = whole_units(range, node_.format().limits().cluster_size);
  if (clusters.empty()) {
    co_await zero_edge(range, options);
    co_return;
  }
  // The middle first: where it is refused as not fast, nothing has been written.
  co_await zero_clusters(clusters, options);
  // What is to be fast has been done.
  options.fast_only = false;
  if (range.offset < clusters.offset) {
    co_await zero_edge(GuestRange::between(range.offset, clusters.offset), options);
  }
  if (clusters.end() < range.end()) {
    co_await zero_edge(GuestRange::between(clusters.end(), range.end()), options);
  }
}

Task<void> Access::zero_directly(GuestRange range, ZeroOptions options) {
  while (!range.empty()) {
    Mapping mapping = co_await map(range, MapPurpose::kWrite);
    CHECK(mapping.kind == MappingKind::kData);
    HostRange host(mapping.host, mapping.length);
    co_await format_.data_storage().write_zeroes(host, options);
    range = GuestRange::between(range.offset + mapping.length, range.end());
  }
}

// Less than a cluster, or parts of two: the subclusters in it, where there are any, and zeros
// written around them, which are not fast.
Task<void> Access::zero_edge(GuestRange range, ZeroOptions options) {
  const FormatLimits& limits = node_.format().limits();
  GuestRange units(range.end(), ByteCount(0));
  if (limits.subcluster_bits != 0) {
    const GuestRange whole = whole_units(range, limits.granularity());
    if (!whole.empty()) units = whole;
  }
  const GuestRange before = GuestRange::between(range.offset, units.offset);
  const GuestRange after = GuestRange::between(units.end(), range.end());
  const bool writes_before = !before.empty() && !is_known_zero(before);
  const bool writes_after = !after.empty() && !is_known_zero(after);
  if (options.fast_only && (writes_before || writes_after)) {
    co_await fail(Error::of(ErrorKind::kUnsupported, "write zeroes", range.offset.value()));
  }
  if (!units.empty()) co_await zero_clusters(units, options);
  if (writes_before) co_await write_out_zeroes(before);
  if (writes_after) co_await write_out_zeroes(after);
}

Task<void> Access::write_out_zeroes(GuestRange range) {
  const auto piece_max =
      static_cast<size_t>(std::min(range.length.value(), limits::kBouncePieceBytesMax));
  Buffer zeroes = co_await shard_.buffers().try_take(piece_max);
  fill_zero(zeroes.first(piece_max));
  while (!range.empty()) {
    const auto piece = static_cast<size_t>(std::min<uint64_t>(range.length.value(), piece_max));
    WriteOptions options;
    co_await write(range.offset, ConstBuffers(Bytes(zeroes.first(piece))), options);
    range = GuestRange::between(range.offset + ByteCount(piece), range.end());
  }
}

Task<void> Access::zero_clusters(GuestRange clusters, ZeroOptions options) {
  while (!clusters.empty()) {
    Result<ClusterChange> change = co_await format_.zero_clusters(clusters, options).result();
    if (!change.ok() && change.error().kind == ErrorKind::kUnsupported && !options.fast_only) {
      // An image that has no zero clusters (version 2 over a backing image), or subclusters of a
      // compressed cluster.
      co_await write_out_zeroes(clusters);
      co_return;
    }
    ClusterChange made = co_await std::move(change);
    clusters = GuestRange::between(clusters.offset + made.done, clusters.end());
  }
}

Task<void> Access::discard(GuestRange range) {
  if (node_.format().limits().maps_directly) {
    while (!range.empty()) {
      Mapping mapping = co_await map(range, MapPurpose::kWrite);
      CHECK(mapping.kind == MappingKind::kData);
      HostRange host(mapping.host, mapping.length);
      co_await format_.data_storage().discard(host);
      range = GuestRange::between(range.offset + mapping.length, range.end());
    }
    co_return;
  }
  GuestRange clusters = whole_units(range, node_.format().limits().granularity());
  while (!clusters.empty()) {
    ClusterChange made = co_await format_.discard_clusters(clusters);
    clusters = GuestRange::between(clusters.offset + made.done, clusters.end());
  }
}

}  // namespace ringdisk
