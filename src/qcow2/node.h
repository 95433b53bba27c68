// SPDX-License-Identifier: Apache-2.0
// Qcow2Node: an open image, shared by the queues of all shards. The shard of the first queue
// becomes its home.
#pragma once

#include <atomic>
#include <memory>

#include "async/mutex.h"
#include "qcow2/queue.h"

namespace ringdisk::qcow2 {

class Qcow2Node final : public FormatNode {
 public:
  explicit Qcow2Node(std::unique_ptr<Image> image) : image_(std::move(image)) {}
  ~Qcow2Node() override;

  const char* driver() const override { return "qcow2"; }
  const FormatLimits& limits() const override { return image_->limits; }
  ByteCount size() const override { return image_->size; }
  Task<std::unique_ptr<FormatQueue>> open_queue(Shard& shard) override;
  Task<std::vector<BitmapDescription>> bitmaps() override;
  Task<std::shared_ptr<const DirtyBits>> find_bitmap(std::string name) override;
  Task<void> close() override;

  // One change of the image as a whole (table_editor.h), opened for writing: queues that were there
  // before are gone, what they changed is written first; nothing but close() comes after.
  Task<void> edit(const ImageEdit& edit);

  // For tests and the format's own tools.
  Image& image() { return *image_; }

 private:
  Task<void> edit_on(Shard& home_shard, const ImageEdit& edit);
  Task<void> ensure_home(Shard& home_shard);
  Task<Shard*> ensure_home_somewhere();
  Task<std::vector<BitmapDescription>> describe_bitmaps_at_home();
  Task<void> close_home();

  const std::unique_ptr<Image> image_;

  // any shard (atomic): null until the first queue is opened
  std::atomic<Shard*> home_shard_{nullptr};

  // home shard only
  Mutex opening_;
  std::unique_ptr<Home> home_;
};

}  // namespace ringdisk::qcow2
