// SPDX-License-Identifier: Apache-2.0
// Creating raw images: the storage does nearly all of it.
#include "nodes/raw_admin.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kFillPieceBytes = 1 * limits::kMiB;

enum class Preallocation : uint8_t { kOff, kFalloc, kFull };

Result<Preallocation> parse_preallocation(Options& options, Diagnostics& diagnostics) {
  const std::string text = options.take("preallocation").value_or("off");
  if (text == "off") return Preallocation::kOff;
  if (text == "falloc") return Preallocation::kFalloc;
  if (text == "full") return Preallocation::kFull;
  return diagnostics.explain(
      Error::of(ErrorKind::kInvalid, "create"),
      "preallocation of a raw image is off, falloc or full, not '" + text + "'");
}

Task<void> fill(StorageAccess& storage, ByteCount size) {
  Buffer buffer = Shard::current().buffers().take(kFillPieceBytes);
  const MutableBytes zeros = buffer.first(kFillPieceBytes);
  fill_zero(zeros);
  for (uint64_t at = 0; at < size.value(); at += kFillPieceBytes) {
    const uint64_t length = std::min(kFillPieceBytes, size.value() - at);
    const ConstBuffers source(Bytes(zeros.first(length)));
    co_await storage.write(HostOffset(at), source);
  }
}

Task<void> take_space(SharedStorage& storage, Preallocation how) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  const ByteCount size = access->size();
  if (size.is_zero()) co_return;
  if (how == Preallocation::kFalloc) {
    co_await access->allocate(HostRange(HostOffset(0), size));
  } else {
    co_await fill(*access, size);
  }
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
  Preallocation how = co_await parse_preallocation(request.options, diagnostics);
  co_await request.options.check_all_taken("raw", diagnostics);
  const uint64_t sectors =
      request.size.value() / kSectorBytes + (request.size.value() % kSectorBytes == 0 ? 0 : 1);
  if (sectors > kOffsetMax / kSectorBytes) {
    co_await fail(diagnostics.explain(Error::of(ErrorKind::kLimit, "create"),
                                      "the size is larger than a file can be"));
  }
  co_await graph.create_storage(request.storage, ByteCount(sectors * kSectorBytes));
  if (how == Preallocation::kOff) co_return;
  OpenMode mode;
  std::unique_ptr<SharedStorage> storage = co_await graph.open_storage(request.storage, mode);
  Result<void> taken = co_await take_space(*storage, how).result();
  Result<void> closed = co_await storage->node->close().result();
  co_await std::move(taken);
  co_await std::move(closed);
}

static Task<void> resize_storage(SharedStorage& storage, ByteCount size) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  co_await access->resize(size);
  co_await access->flush();
}

Task<void> RawAdmin::resize(Graph&, std::unique_ptr<SharedStorage> storage, ByteCount size) {
  Result<void> resized = co_await resize_storage(*storage, size).result();
  Result<void> closed = co_await storage->node->close().result();
  co_await std::move(resized);
  co_await std::move(closed);
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
