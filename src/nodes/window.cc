// SPDX-License-Identifier: Apache-2.0
// Every offset moved by one number.
#include "nodes/window.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "nodes/filter_child.h"

namespace ringdisk {
namespace {

// The child pads what does not fit its blocks.
class WindowQueue final : public StorageQueue {
 public:
  WindowQueue(std::unique_ptr<StorageAccess> child, ByteCount offset)
      : child_(std::move(child)), offset_(offset) {}

  Task<void> read(HostOffset offset, MutableBuffers target) override {
    return child_->read(offset + offset_, target);
  }
  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options) override {
    return child_->write(offset + offset_, source, options);
  }
  Task<void> write_zeroes(HostRange range, ZeroOptions options) override {
    return child_->write_zeroes(moved(range), options);
  }
  Task<void> discard(HostRange range) override { return child_->discard(moved(range)); }
  Task<void> flush() override { return child_->flush(); }
  Task<StorageExtent> find_extent(HostRange range) override {
    return child_->find_extent(moved(range));
  }
  Task<void> resize(ByteCount size) override { return child_->resize(offset_ + size); }
  Task<void> allocate(HostRange range) override { return child_->allocate(moved(range)); }

 private:
  HostRange moved(HostRange range) const { return HostRange(range.offset + offset_, range.length); }

  const std::unique_ptr<StorageAccess> child_;
  const ByteCount offset_;
};

// Where blocks of the child are no blocks of the window, the window has none.
StorageLimits limits_of(const StorageNode& child, const Window& window) {
  StorageLimits limits = child.limits();
  const uint64_t ends = window.offset.value() | window.size.value_or(ByteCount(0)).value();
  if (ends % limits.block_size != 0) limits.block_size = limits.memory_alignment = 1;
  if (window.size) limits.grows = false;
  return limits;
}

Task<std::unique_ptr<StorageNode>> open_window(const World& world, const Drivers& drivers,
                                               Options options, OpenMode mode) {
  const Window window = co_await take_window(options, world.diagnostics);
  std::unique_ptr<SharedStorage> child =
      co_await open_filter_child(world, drivers, "raw", std::move(options), mode);
  Result<void> checked = check_window(window, *child->node, world.diagnostics);
  if (!checked.ok()) {
    // That it does not fit is the cause, not how the untouched storage closes.
    Result<void> closed = co_await child->node->close().result();
    static_cast<void>(closed.ok());
    co_return checked.error();
  }
  std::unique_ptr<StorageNode> node = std::make_unique<WindowNode>(std::move(child), window);
  co_return std::move(node);
}

}  // namespace

Result<Window> take_window(Options& options, Diagnostics& diagnostics) {
  Window window;
  ASSIGN_OR_RETURN(const uint64_t offset, options.take_size("offset", 0, diagnostics));
  window.offset = ByteCount(offset);
  if (options.has("size")) {
    ASSIGN_OR_RETURN(const uint64_t size, options.take_size("size", 0, diagnostics));
    window.size = ByteCount(size);
  }
  return window;
}

Result<void> check_window(const Window& window, const StorageNode& storage,
                          Diagnostics& diagnostics) {
  const ByteCount there = storage.size();
  const bool fits = window.offset <= there &&
                    window.size.value_or(ByteCount(0)).value() <= (there - window.offset).value();
  if (fits) return {};
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"), storage.id(),
                             "offset and size together go beyond the end of the file, which has " +
                                 std::to_string(there.value()) + " bytes");
}

WindowNode::WindowNode(std::unique_ptr<SharedStorage> child, Window window)
    : StorageNode(child->node->name(), child->node->id()),
      child_(std::move(child)),
      window_(window),
      limits_(limits_of(*child_->node, window)) {}

ByteCount WindowNode::size() const {
  if (window_.size) return *window_.size;
  return child_->node->size() - std::min(window_.offset, child_->node->size());
}

Task<std::unique_ptr<StorageQueue>> WindowNode::open_queue(Shard& shard) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*child_, shard);
  std::unique_ptr<StorageQueue> queue =
      std::make_unique<WindowQueue>(std::move(access), window_.offset);
  co_return std::move(queue);
}

StorageDriver window_driver(Drivers below) {
  StorageDriver driver;
  driver.name = "raw";
  auto drivers = std::make_shared<const Drivers>(std::move(below));
  driver.open = [drivers](const World& world, Options options, OpenMode mode) {
    return open_window(world, *drivers, std::move(options), mode);
  };
  driver.words = {"offset", "size", "file.", "filename"};
  return driver;
}

}  // namespace ringdisk
