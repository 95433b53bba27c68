// SPDX-License-Identifier: Apache-2.0
// Creating raw images: the storage does nearly all of it.
#include "nodes/raw_admin.h"

#include "base/diagnostics.h"
#include "block/close_after.h"
#include "block/preallocation.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr uint64_t kSectorBytes = 512;

// Of the file of a disk of `size`, in whole sectors.
Result<ByteCount> file_bytes_of(ByteCount size, Diagnostics& diagnostics) {
  const uint64_t sectors = size.value() / kSectorBytes + (size.value() % kSectorBytes == 0 ? 0 : 1);
  if (sectors <= kOffsetMax / kSectorBytes) return ByteCount(sectors * kSectorBytes);
  return diagnostics.explain(Error::of(ErrorKind::kLimit, "create"),
                             "the size is larger than a file can be");
}

Result<Preallocation> take_preallocation(Options& options, Diagnostics& diagnostics) {
  const std::string text = options.take("preallocation").value_or("off");
  const std::optional<Preallocation> how = parse_preallocation(text);
  if (how && how != Preallocation::kMetadata) return *how;
  return diagnostics.explain(
      Error::of(ErrorKind::kInvalid, "create"),
      "preallocation of a raw image is off, falloc or full, not '" + text + "'");
}

Task<void> take_space_of(SharedStorage& storage, Preallocation how) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  const HostRange all(HostOffset(0), access->size());
  co_await take_space(*access, all, how);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> RawAdmin::create_options() const {
  return {{"preallocation=<str>", "Take the space at once (allowed values: off, falloc, full)"},
          {"size=<size>", "Virtual disk size"}};
}

Task<void> RawAdmin::create(Graph& graph, CreateRequest request) {
  Diagnostics& diagnostics = graph.world().diagnostics;
  if (!request.backing_name.empty()) {
    co_await fail(diagnostics.explain(Error::of(ErrorKind::kUnsupported, "create"),
                                      "a raw image cannot have a backing file; a qcow2 image can"));
  }
  Preallocation how = co_await take_preallocation(request.options, diagnostics);
  co_await request.options.check_all_taken("raw", diagnostics);
  const ByteCount file_bytes = co_await file_bytes_of(request.size, diagnostics);
  co_await graph.create_storage(request.storage, file_bytes);
  if (how == Preallocation::kOff) co_return;
  OpenMode mode;
  std::unique_ptr<SharedStorage> storage = co_await graph.open_storage(request.storage, mode);
  Result<void> taken = co_await take_space_of(*storage, how).result();
  co_await close_after(std::move(taken), *storage->node);
}

// Holes count: they may be filled.
Task<MeasureReport> RawAdmin::measure(const World& world, MeasureRequest request) {
  const Preallocation how = co_await take_preallocation(request.options, world.diagnostics);
  static_cast<void>(how);
  co_await request.options.check_all_taken("raw", world.diagnostics);
  MeasureReport report;
  report.fully_allocated = co_await file_bytes_of(request.size, world.diagnostics);
  report.required = report.fully_allocated;
  co_return report;
}

Task<void> RawAdmin::check_new_size(const World& world, SharedStorage& storage, ByteCount size) {
  const StorageNode& node = *storage.node;
  if (node.limits().grows || size == node.size()) co_return;
  co_await fail(world.diagnostics.explain(
      Error::of(ErrorKind::kUnsupported, "resize"), node.id(),
      "its size is fixed: by size= in the description, or by the device that it is"));
}

static Task<void> resize_storage(SharedStorage& storage, ByteCount size) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  co_await access->resize(size);
  co_await access->flush();
}

Task<void> RawAdmin::resize(Graph&, std::unique_ptr<SharedStorage> storage, ByteCount size) {
  Result<void> resized = co_await resize_storage(*storage, size).result();
  co_await close_after(std::move(resized), *storage->node);
}

Task<ImageDescription> RawAdmin::describe(const World&, SharedStorage& storage) {
  ImageDescription description;
  const uint64_t size = storage.node->size().value();
  description.virtual_size = ByteCount((size + kSectorBytes - 1) / kSectorBytes * kSectorBytes);
  co_return description;
}

Task<std::optional<CheckReport>> RawAdmin::check(const World&, SharedStorage&, CheckOptions,
                                                 CancelToken, std::function<void(CheckProgress)>) {
  co_return std::optional<CheckReport>();
}

}  // namespace ringdisk
