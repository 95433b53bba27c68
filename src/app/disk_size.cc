// SPDX-License-Identifier: Apache-2.0
// Opening what the steps of a resize ask for.
#include "app/disk_size.h"

#include "app/images.h"
#include "jobs/resize.h"

namespace ringdisk {
namespace {

Task<ResizedImage::File> open_file(Program& program, ImageName name, OpenMode mode) {
  mode.no_backing = true;
  ImageFile image = co_await open_image_file(program, std::move(name), mode);
  ResizedImage::File file;
  file.admin = image.admin;
  file.storage = std::move(image.storage);
  co_return std::move(file);
}

Task<std::shared_ptr<DeviceNode>> open_disk(Program& program, ImageName name, OpenMode mode) {
  Graph graph = program.graph();
  co_return co_await graph.open(std::move(name), mode);
}

}  // namespace

Task<ByteCount> size_of_disk(Program& program, ImageName name, OpenMode mode) {
  mode.read_only = mode.keep_clean = true;
  std::shared_ptr<DeviceNode> device = co_await open_disk(program, std::move(name), mode);
  const ByteCount size = device->size();
  co_await device->close();
  co_return size;
}

Task<void> change_disk_size(Program& program, ImageName name, OpenMode mode, ByteCount old_size,
                            ByteCount size, Preallocation how) {
  ResizedImage image;
  image.open_file = [&program, &name, mode] { return open_file(program, name, mode); };
  image.open_disk = [&program, &name, mode] { return open_disk(program, name, mode); };
  Graph graph = program.graph();
  co_await resize_disk(graph, image, old_size, size, how);
}

}  // namespace ringdisk
