// SPDX-License-Identifier: Apache-2.0
// In the order that loses nothing: zero, shrink; or grow, zero.
#include "app/disk_size.h"

#include <algorithm>

#include "app/images.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

Task<void> zero_on(DeviceNode& device, GuestRange range) {
  std::unique_ptr<DeviceQueue> queue = co_await device.open_queue(Shard::current());
  ZeroOptions options;
  options.may_unmap = true;
  co_await queue->write_zeroes(range, options);
  co_await queue->flush();
}

// The disk, opened for writing, reads as zeros in `range` afterwards; it is closed again.
Task<void> zero_and_close(std::shared_ptr<DeviceNode> device, GuestRange range) {
  Result<void> zeroed;
  if (!range.empty() && !device->format().limits().maps_directly) {
    zeroed = co_await zero_on(*device, range).result();
  }
  Result<void> closed = co_await device->close().result();
  co_await std::move(zeroed);
  co_await std::move(closed);
}

// What of a disk that has grown may show something else than zeros: the rest of the cluster in
// which it ended, and what the backing image has beyond the old end.
GuestRange gained_range(const DeviceNode& device, ByteCount old_size) {
  const uint64_t cluster = device.format().limits().cluster_size.value();
  const uint64_t backing = device.backing() ? device.backing()->size().value() : 0;
  const uint64_t begin = old_size.value();
  const uint64_t cluster_end = cluster == 0 ? begin : (begin + cluster - 1) / cluster * cluster;
  const uint64_t end = std::min(device.size().value(), std::max(cluster_end, backing));
  return GuestRange::between(GuestOffset(begin), GuestOffset(std::max(begin, end)));
}

Task<void> set_size(Program& program, const ImageName& name, OpenMode mode, ByteCount size) {
  mode.no_backing = true;
  ImageFile image = co_await open_image_file(program, name, mode);
  Graph graph = program.graph();
  co_await image.admin->resize(graph, std::move(image.storage), size);
}

// Before anything is given up for it.
Task<void> check_size(Program& program, const ImageName& name, OpenMode mode, ByteCount size) {
  mode.read_only = mode.no_backing = mode.keep_clean = true;
  ImageFile image = co_await open_image_file(program, name, mode);
  Result<void> checked =
      co_await image.admin->check_new_size(program.world, *image.storage, size).result();
  Result<void> closed = co_await image.storage->node->close().result();
  co_await std::move(checked);
  co_await std::move(closed);
}

Task<void> give_up_beyond(Program& program, const ImageName& name, OpenMode mode, ByteCount size) {
  Graph graph = program.graph();
  std::shared_ptr<DeviceNode> device = co_await graph.open(name, mode);
  const GuestOffset end(device->size().value());
  const GuestRange lost = GuestRange::between(GuestOffset(size.value()), end);
  co_await zero_and_close(std::move(device), lost);
}

Task<void> zero_gained(Program& program, const ImageName& name, OpenMode mode, ByteCount old_size) {
  Graph graph = program.graph();
  std::shared_ptr<DeviceNode> device = co_await graph.open(name, mode);
  const GuestRange gained = gained_range(*device, old_size);
  co_await zero_and_close(std::move(device), gained);
}

}  // namespace

Task<ByteCount> size_of_disk(Program& program, ImageName name, OpenMode mode) {
  mode.read_only = mode.keep_clean = true;
  Graph graph = program.graph();
  std::shared_ptr<DeviceNode> device = co_await graph.open(std::move(name), mode);
  const ByteCount size = device->size();
  co_await device->close();
  co_return size;
}

Task<void> change_disk_size(Program& program, ImageName name, OpenMode mode, ByteCount old_size,
                            ByteCount size) {
  co_await check_size(program, name, mode, size);
  if (size < old_size) co_await give_up_beyond(program, name, mode, size);
  co_await set_size(program, name, mode, size);
  if (size <= old_size) co_return;
  Result<void> zeroed = co_await zero_gained(program, name, mode, old_size).result();
  if (!zeroed.ok()) {
    // Else it would show what it must not. That this fails, too, adds nothing to the cause.
    Result<void> undone = co_await set_size(program, name, mode, old_size).result();
    static_cast<void>(undone.ok());
  }
  co_await std::move(zeroed);
}

}  // namespace ringdisk
