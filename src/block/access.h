// SPDX-License-Identifier: Apache-2.0
// Access: the one place that joins formats (where) and storages (bytes). It splits a request by
// mappings, runs the pieces side by side, descends into the backing image, fills zeros, merges what
// a new cluster needs around a write. Belongs to a DeviceQueue, on its shard; what comes here has
// passed that funnel.
//
// Costs: a request that lies in one mapping makes one coroutine frame here and one in the storage's
// driver; a fragmented one makes one frame a piece, kPiecesInFlightMax at a time.
#pragma once

#include <memory>
#include <optional>

#include "block/device_queue.h"
#include "block/format.h"
#include "block/joined_writes.h"
#include "block/storage_access.h"

namespace ringdisk {

class Access {
 public:
  // `backing` may be null. All outlive the Access.
  Access(DeviceNode& node, FormatQueue& format, DeviceQueue* backing, Shard& shard)
      : node_(node), format_(format), backing_(backing), shard_(shard) {}

  Task<void> read(GuestOffset offset, MutableBuffers target);
  Task<void> write(GuestOffset offset, ConstBuffers source, WriteOptions options);
  // Stretches of zeros are zeroed instead, cluster by cluster.
  Task<void> write_detecting_zeroes(GuestOffset offset, ConstBuffers source, WriteOptions options,
                                    bool may_unmap);
  Task<void> write_compressed(GuestOffset offset, Bytes cluster, CompressOptions options);
  Task<void> write_zeroes(GuestRange range, ZeroOptions options);
  Task<void> discard(GuestRange range);
  Task<BlockStatus> block_status(GuestRange range, uint32_t depth_max);

 private:
  struct ReadPiece;
  struct WritePiece;

  Task<Mapping> map(GuestRange range, MapPurpose purpose);

  Task<void> read_pieces(GuestOffset offset, MutableBuffers target);
  Task<void> read_piece(GuestOffset offset, const Mapping& mapping, MutableBuffers target);
  Task<void> read_backing(GuestOffset offset, MutableBuffers target);
  Task<void> read_compressed_piece(GuestOffset offset, MutableBuffers target);

  Task<void> write_pieces(GuestOffset offset, ConstBuffers source, WriteOptions options);
  Task<size_t> write_in_place(GuestOffset offset, ConstBuffers source, WriteOptions options);
  Task<size_t> write_elsewhere(GuestOffset offset, ConstBuffers source);
  Task<void> fill_allocation(const Allocation& allocation, ConstBuffers source,
                             JoinedWrites::Leader& leader);
  Task<void> read_edge(GuestRange edge, MutableBytes target);
  bool is_known_zero(GuestRange range);

  Task<void> zero_directly(GuestRange range, ZeroOptions options);
  Task<void> zero_edge(GuestRange range, ZeroOptions options);
  Task<void> zero_clusters(GuestRange clusters, ZeroOptions options);
  Task<void> write_out_zeroes(GuestRange range);
  GuestRange whole_units(GuestRange range, ByteCount unit) const;

  Task<BlockStatus> status_of_data(const Mapping& mapping);
  Task<bool> storage_has_holes();
  Task<BlockStatus> status_of_absent(GuestRange range, const Mapping& mapping, uint32_t depth_max);
  void note_kept_place(const Mapping& mapping, BlockStatus& status);

  DeviceNode& node_;
  FormatQueue& format_;
  DeviceQueue* backing_;
  Shard& shard_;
  JoinedWrites joined_writes_;
  std::optional<bool> storage_has_holes_;
};

}  // namespace ringdisk
