// SPDX-License-Identifier: Apache-2.0
// The format gives places, the storage takes space for them.
#include "jobs/preallocate.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "block/format.h"
#include "block/storage_access.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

// `reads_zero`: the range does already.
Task<void> take_zeros(StorageAccess& storage, HostRange range, bool reads_zero, Preallocation how) {
  const bool are_written = how == Preallocation::kFull;
  if (!are_written && !reads_zero) co_await storage.write_zeroes(range);
  const ByteCount end(range.end().value());
  if (!are_written && storage.limits().grows && storage.size() < end) co_await storage.resize(end);
  co_await take_space(storage, range, how);
}

// A prefix of `range` that has no place yet. Gives its length, zero where somebody else was faster.
Task<ByteCount> allocate_prefix(FormatQueue& format, GuestRange range, Preallocation how) {
  std::optional<Allocation> allocation = co_await format.begin_allocation(range);
  if (!allocation) co_return ByteCount(0);
  const HostRange place(allocation->host, allocation->cover.length);
  Result<void> taken =
      co_await take_zeros(format.data_storage(), place, allocation->reads_zero, how).result();
  if (!taken.ok()) {
    co_await format.abandon_allocation(*allocation);
    co_await std::move(taken);
  }
  co_await format.finish_allocation(*allocation);
  co_return allocation->request.length;
}

// How far from the range's beginning on it has places; zero: not even there.
Task<ByteCount> placed_prefix(FormatQueue& format, GuestRange range) {
  Mapping mapping;
  while (!format.try_map(range, MapPurpose::kRead, mapping)) {
    co_await format.load_map(range.offset);
  }
  const bool has_place = mapping.kind == MappingKind::kData ||
                         mapping.kind == MappingKind::kCompressed || mapping.has_kept_place;
  co_return has_place ? mapping.length : ByteCount(0);
}

Task<void> allocate_clusters(FormatQueue& format, GuestRange range, Preallocation how) {
  const GuestOffset end = range.end();
  for (GuestOffset at = range.offset; at < end;) {
    const GuestRange rest = GuestRange::between(at, end);
    ByteCount done = co_await placed_prefix(format, rest);
    if (done.is_zero()) done = co_await allocate_prefix(format, rest, how);
    at = at + done;
  }
  co_await format.flush();
}

// Of a disk whose bytes are where its storage has them.
Task<void> take_space_directly(StorageAccess& storage, GuestRange range, Preallocation how) {
  const HostRange place(HostOffset(range.offset.value()), range.length);
  co_await take_zeros(storage, place, true, how);
  co_await storage.flush();
}

}  // namespace

Result<void> check_preallocation(const DeviceNode& device, Preallocation how,
                                 Diagnostics& diagnostics) {
  const bool has_metadata = !device.format().limits().maps_directly;
  if (how != Preallocation::kMetadata || has_metadata) return {};
  return diagnostics.explain(
      Error::of(ErrorKind::kUnsupported, "preallocate"),
      device.name() + ": has no metadata to preallocate; there is: off, falloc, full");
}

Task<void> preallocate(DeviceNode& device, GuestRange range, Preallocation how) {
  const FormatLimits& limits = device.format().limits();
  const uint64_t cluster = limits.cluster_size.value();
  GuestOffset begin = range.offset;
  if (!limits.maps_directly) begin = begin.align_up(cluster);
  if (how == Preallocation::kOff || begin >= range.end()) co_return;
  const GuestRange whole = GuestRange::between(begin, range.end());
  std::unique_ptr<FormatQueue> format = co_await device.format().open_queue(Shard::current());
  if (limits.maps_directly) {
    co_await take_space_directly(format->data_storage(), whole, how);
  } else {
    co_await allocate_clusters(*format, whole, how);
  }
}

}  // namespace ringdisk
