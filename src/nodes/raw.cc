// SPDX-License-Identifier: Apache-2.0
// The queue of `raw`, and how large a raw disk is.
#include "nodes/raw.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "nodes/first_sector_guard.h"
#include "nodes/window.h"

namespace ringdisk {
namespace {

constexpr uint64_t kSectorBytes = 512;

class RawQueue final : public FormatQueue {
 public:
  RawQueue(std::unique_ptr<StorageAccess> storage, ByteCount offset)
      : storage_(std::move(storage)), offset_(offset) {}

  StorageAccess& data_storage() override { return *storage_; }

  bool try_map(GuestRange range, MapPurpose, Mapping& mapping) override {
    mapping.kind = MappingKind::kData;
    mapping.length = range.length;
    mapping.host = HostOffset(range.offset.value()) + offset_;
    return true;
  }
  Task<void> flush() override { return storage_->flush(); }

  // try_map always succeeds and always says kData, so nobody has a reason to come here.
  Task<void> load_map(GuestOffset) override { UNREACHABLE("raw has no tables to load"); }
  Task<std::optional<Allocation>> begin_allocation(GuestRange) override {
    UNREACHABLE("raw allocates nothing");
  }
  Task<void> finish_allocation(const Allocation&) override { UNREACHABLE("raw allocates nothing"); }
  Task<void> abandon_allocation(const Allocation&) override {
    UNREACHABLE("raw allocates nothing");
  }
  Task<ClusterChange> zero_clusters(GuestRange, ZeroOptions) override {
    UNREACHABLE("raw maps directly");
  }
  Task<ClusterChange> discard_clusters(GuestRange) override { UNREACHABLE("raw maps directly"); }
  Task<void> read_compressed(GuestOffset, MutableBytes) override {
    UNREACHABLE("raw has no compressed clusters");
  }

 private:
  void release_pin(uint32_t) override { UNREACHABLE("raw pins nothing"); }

  const std::unique_ptr<StorageAccess> storage_;
  const ByteCount offset_;
};

FormatLimits limits_of(const StorageNode& storage) {
  FormatLimits limits;
  limits.cluster_size = ByteCount(1);
  limits.read_only = storage.limits().read_only;
  limits.maps_directly = true;
  return limits;
}

// How large the disk is.
ByteCount size_of(const Window& window, const StorageNode& storage) {
  if (window.size) return *window.size;
  const ByteCount size = storage.size() - window.offset;
  const bool rounds = storage.limits().grows || storage.limits().read_only;
  if (!rounds || size.value() > kOffsetMax - kSectorBytes) return size;
  return ByteCount((size.value() + kSectorBytes - 1) / kSectorBytes * kSectorBytes);
}

struct RawOptions {
  Window window;
  bool probed = false;
};

Result<RawOptions> parse_options(Options& options, Diagnostics& diagnostics) {
  RawOptions raw;
  ASSIGN_OR_RETURN(raw.window, take_window(options, diagnostics));
  ASSIGN_OR_RETURN(raw.probed, options.take_bool("probed", false, diagnostics));
  RETURN_IF_ERROR(options.check_all_taken("raw", diagnostics));
  return raw;
}

Result<std::unique_ptr<FormatNode>> make_raw(FormatOpening& opening) {
  Diagnostics& diagnostics = opening.world.diagnostics;
  ASSIGN_OR_RETURN(RawOptions raw, parse_options(opening.options, diagnostics));
  RETURN_IF_ERROR(check_window(raw.window, *opening.storage->node, diagnostics));
  const ByteCount size = size_of(raw.window, *opening.storage->node);
  std::unique_ptr<SharedStorage> storage = std::move(opening.storage);
  if (raw.probed && !storage->node->limits().read_only) {
    storage = std::make_unique<SharedStorage>(
        std::make_unique<FirstSectorGuardNode>(std::move(storage), diagnostics));
  }
  return std::make_unique<RawNode>(std::move(storage), raw.window.offset, size);
}

Task<OpenedFormat> open_raw(FormatOpening opening) {
  Result<std::unique_ptr<FormatNode>> made = make_raw(opening);
  if (!made.ok()) {
    // What is wrong with the options is the cause, not how the untouched storage closes.
    Result<void> closed = co_await opening.storage->node->close().result();
    static_cast<void>(closed.ok());
    co_return made.error();
  }
  OpenedFormat opened;
  opened.node = std::move(made).value();
  co_return std::move(opened);
}

}  // namespace

RawNode::RawNode(std::unique_ptr<SharedStorage> storage, ByteCount offset, ByteCount size)
    : storage_(std::move(storage)),
      offset_(offset),
      size_(size),
      limits_(limits_of(*storage_->node)) {}

Task<std::unique_ptr<FormatQueue>> RawNode::open_queue(Shard& shard) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*storage_, shard);
  std::unique_ptr<FormatQueue> queue = std::make_unique<RawQueue>(std::move(access), offset_);
  co_return std::move(queue);
}

Task<void> RawNode::close() { return storage_->node->close(); }

FormatDriver raw_driver() {
  FormatDriver driver;
  driver.name = "raw";
  driver.words = {"offset", "size", "probed"};
  // Anything can be raw, so nothing speaks for it: the graph takes it when no other format is sure.
  driver.probe = [](Bytes) { return 0; };
  driver.open = open_raw;
  return driver;
}

}  // namespace ringdisk
