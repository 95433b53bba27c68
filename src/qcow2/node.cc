// SPDX-License-Identifier: Apache-2.0
// Queues come, the home appears with the first of them; close ends it.
#include "qcow2/node.h"

namespace ringdisk::qcow2 {

Qcow2Node::~Qcow2Node() { CHECK(home_ == nullptr); }

Task<void> Qcow2Node::ensure_home(Shard& home_shard) {
  MutexLock lock = co_await opening_.lock();
  if (!home_) home_ = co_await Home::open(*image_, home_shard);
}

// On this shard where there is none yet.
Task<Shard*> Qcow2Node::ensure_home_somewhere() {
  Shard* home_shard = nullptr;
  Shard& shard = Shard::current();
  if (home_shard_.compare_exchange_strong(home_shard, &shard)) home_shard = &shard;
  auto ensure = [this, home_shard] { return ensure_home(*home_shard); };
  co_await home_shard->call(ensure);
  co_return home_shard;
}

Task<std::unique_ptr<FormatQueue>> Qcow2Node::open_queue(Shard& shard) {
  Shard* home_shard = co_await ensure_home_somewhere();
  std::unique_ptr<StorageAccess> storage = co_await StorageAccess::open(*image_->storage, shard);
  std::unique_ptr<StorageAccess> data;
  if (image_->data) data = co_await StorageAccess::open(*image_->data, shard);
  co_return std::make_unique<Qcow2Queue>(*image_, *home_, *home_shard, shard, std::move(storage),
                                         std::move(data));
}

// Of an image that is only read they are what is on the disk.
Task<std::vector<BitmapDescription>> Qcow2Node::bitmaps() {
  if (image_->header.version < 3) co_return Error::of(ErrorKind::kUnsupported, "list bitmaps");
  if (!image_->limits.read_only) {
    Shard* home_shard = co_await ensure_home_somewhere();
    auto describe = [this] { return describe_bitmaps_at_home(); };
    co_return co_await home_shard->call(describe);
  }
  std::unique_ptr<StorageAccess> storage =
      co_await StorageAccess::open(*image_->storage, Shard::current());
  const BitmapDirectory directory =
      co_await read_bitmap_directory(*storage, image_->header, image_->world.diagnostics);
  co_return describe_bitmaps(directory, image_->header.size);
}

Task<std::vector<BitmapDescription>> Qcow2Node::describe_bitmaps_at_home() {
  co_return home_->describe_bitmaps();
}

Task<std::shared_ptr<const DirtyBits>> Qcow2Node::find_bitmap(std::string name) {
  if (!image_->limits.read_only) {
    Shard* home_shard = co_await ensure_home_somewhere();
    auto find = [this, &name] { return home_->find_bitmap(name); };
    co_return co_await home_shard->call(find);
  }
  std::unique_ptr<StorageAccess> storage =
      co_await StorageAccess::open(*image_->storage, Shard::current());
  const BitmapDirectory directory =
      co_await read_bitmap_directory(*storage, image_->header, image_->world.diagnostics);
  const size_t index = co_await choose_bitmap(directory, name, image_->header,
                                              image_->world.diagnostics, image_->node_id());
  co_await judge_bitmap(directory.entries[index], image_->header, image_->world.diagnostics,
                        image_->node_id());
  std::shared_ptr<DirtyBits> bits = co_await read_bitmap_bits(
      *storage, directory.entries[index], image_->header.size, image_->geometry);
  co_return std::move(bits);
}

Task<void> Qcow2Node::edit(const ImageEdit& edit) {
  Shard* home_shard = nullptr;
  Shard& shard = Shard::current();
  if (home_shard_.compare_exchange_strong(home_shard, &shard)) home_shard = &shard;
  auto edit_there = [this, home_shard, &edit] { return edit_on(*home_shard, edit); };
  co_await home_shard->call(edit_there);
}

Task<void> Qcow2Node::edit_on(Shard& home_shard, const ImageEdit& edit) {
  co_await ensure_home(home_shard);
  co_await home_->edit(edit);
}

Task<void> Qcow2Node::close_home() {
  if (!home_) co_return;
  Result<void> closed = co_await home_->close().result();
  home_.reset();
  co_await std::move(closed);
}

Task<void> Qcow2Node::close() {
  Result<void> outcome;
  if (Shard* home_shard = home_shard_.exchange(nullptr)) {
    auto end = [this] { return close_home(); };
    outcome = co_await home_shard->call(end).result();
  }
  if (image_->data) {
    Result<void> closed = co_await image_->data->node->close().result();
    if (outcome.ok()) outcome = std::move(closed);
  }
  co_await image_->storage->node->close();
  co_await std::move(outcome);
}

}  // namespace ringdisk::qcow2
