// SPDX-License-Identifier: Apache-2.0
// Recording a compressed cluster. Unlike an ordinary allocation it takes its lock only now, when
// the stream lies at its place: it replaces the whole cluster, so nothing of the old content has to
// be kept from changing meanwhile.
#include "qcow2/damage.h"
#include "qcow2/home/guest_map.h"

namespace ringdisk::qcow2 {

Task<ClusterChange> GuestMap::record_compressed(ClusterIndex guest, HostOffset at, ByteCount size) {
  const Geometry& geometry = image_.geometry;
  RangeGuard guard(clusters_, guest.value(), guest.value() + 1);
  co_await guard.acquired();
  co_await check_writable(image_, "write");
  co_await ensure_own_table(geometry.l1_index(guest));
  Slice* slice = co_await slice_for(guest);
  const uint64_t index = geometry.index_in_slice(guest);
  const L2Entry old = slice->load(index);
  if (is_invalid(old)) co_await fail(damaged_mapping(image_, guest));
  const HostOffset last = at + size - ByteCount(1);
  const uint64_t extra_sectors =
      last.value() / kCompressedSectorBytes - at.value() / kCompressedSectorBytes;
  slice->store(index, L2Entry::compressed(geometry, at, extra_sectors));
  release(old);
  slices_.mark_dirty(*slice);
  co_return ClusterChange{ByteCount(geometry.cluster_size())};
}

}  // namespace ringdisk::qcow2
