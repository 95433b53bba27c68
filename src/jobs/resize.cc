// SPDX-License-Identifier: Apache-2.0
// The steps, each an opening of its own.
#include "jobs/resize.h"

#include <algorithm>

#include "block/close_after.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

Task<void> zero_range(DeviceNode& device, GuestRange range) {
  if (range.empty()) co_return;
  std::unique_ptr<DeviceQueue> queue = co_await device.open_queue(Shard::current());
  ZeroOptions options;
  options.may_unmap = true;
  co_await queue->write_zeroes(range, options);
  co_await queue->flush();
}

// --- smaller

Task<void> give_up_beyond(const ResizedImage& image, ByteCount size) {
  std::shared_ptr<DeviceNode> device = co_await image.open_disk();
  Result<void> zeroed;
  if (!device->format().limits().maps_directly) {
    const GuestOffset end(device->size().value());
    const GuestRange lost = GuestRange::between(GuestOffset(size.value()), end);
    zeroed = co_await zero_range(*device, lost).result();
  }
  co_await close_after(std::move(zeroed), *device);
}

// --- larger

// What of a disk that grows to `size` may show something else than zeros: the rest of the cluster
// in which it ended, and what the backing image has beyond the old end.
GuestRange gained_range(const DeviceNode& device, ByteCount old_size, ByteCount size) {
  const uint64_t cluster = device.format().limits().cluster_size.value();
  const uint64_t backing = device.backing() ? device.backing()->size().value() : 0;
  const uint64_t begin = old_size.value();
  const uint64_t cluster_end = cluster == 0 ? begin : (begin + cluster - 1) / cluster * cluster;
  const uint64_t end = std::min(size.value(), std::max(cluster_end, backing));
  return GuestRange::between(GuestOffset(begin), GuestOffset(std::max(begin, end)));
}

GuestRange range_between(ByteCount begin, ByteCount end) {
  return GuestRange::between(GuestOffset(begin.value()), GuestOffset(end.value()));
}

Task<void> prepare_gained_of(DeviceNode& device, FormatAdmin& admin, ByteCount old_size,
                             ByteCount size, Preallocation how) {
  const GuestRange gained = gained_range(device, old_size, size);
  if (device.format().limits().maps_directly) co_return;
  if (gained.empty() && how == Preallocation::kOff) co_return;
  co_await admin.show_grown(device.format(), size);
  co_await zero_range(device, gained);
  co_await preallocate(device, range_between(old_size, size), how);
}

Task<void> prepare_gained(Graph& graph, const ResizedImage& image, ByteCount old_size,
                          ByteCount size, Preallocation how) {
  ResizedImage::File file = co_await image.open_file();
  FormatAdmin& admin = *file.admin;
  co_await admin.prepare_growth(graph, std::move(file.storage), size);
  std::shared_ptr<DeviceNode> device = co_await image.open_disk();
  Result<void> prepared = co_await prepare_gained_of(*device, admin, old_size, size, how).result();
  co_await close_after(std::move(prepared), *device);
}

Task<void> change_size(Graph& graph, const ResizedImage& image, ByteCount size) {
  ResizedImage::File file = co_await image.open_file();
  co_await file.admin->resize(graph, std::move(file.storage), size);
}

// A raw disk has its new size now.
Task<void> take_space_of_raw(Graph& graph, const ResizedImage& image, ByteCount old_size,
                             ByteCount size, Preallocation how) {
  std::shared_ptr<DeviceNode> device = co_await image.open_disk();
  Result<void> taken;
  if (device->format().limits().maps_directly) {
    taken = co_await preallocate(*device, range_between(old_size, size), how).result();
  }
  const bool is_taken = taken.ok();
  Result<void> outcome = co_await close_after(std::move(taken), *device).result();
  Result<void> undone;
  if (!is_taken) undone = co_await change_size(graph, image, old_size).result();
  co_await std::move(outcome);  // why there is no space says more than what came of it
  co_await std::move(undone);
}

// --- both

// Before anything is given up for it.
Task<void> check_size(Graph& graph, const ResizedImage& image, ByteCount size) {
  ResizedImage::File file = co_await image.open_file();
  Result<void> checked =
      co_await file.admin->check_new_size(graph.world(), *file.storage, size).result();
  co_await close_after(std::move(checked), *file.storage->node);
}

Task<void> check_space(Graph& graph, const ResizedImage& image, Preallocation how) {
  std::shared_ptr<DeviceNode> device = co_await image.open_disk();
  Result<void> checked = check_preallocation(*device, how, graph.world().diagnostics);
  co_await close_after(std::move(checked), *device);
}

}  // namespace

Task<void> resize_disk(Graph& graph, const ResizedImage& image, ByteCount old_size, ByteCount size,
                       Preallocation how) {
  co_await check_size(graph, image, size);
  const bool takes_space = how != Preallocation::kOff && size > old_size;
  if (takes_space) co_await check_space(graph, image, how);
  if (size < old_size) co_await give_up_beyond(image, size);
  if (size > old_size) co_await prepare_gained(graph, image, old_size, size, how);
  co_await change_size(graph, image, size);
  if (takes_space) co_await take_space_of_raw(graph, image, old_size, size, how);
}

}  // namespace ringdisk
