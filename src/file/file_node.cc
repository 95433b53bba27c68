// SPDX-License-Identifier: Apache-2.0
// The node: limits, the size on disk, closing.
#include "file/file_node.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/diagnostics.h"
#include "file/file_queue.h"
#include "runtime/blocking_pool.h"

namespace ringdisk::file {
namespace {

constexpr uint64_t kStatBlockBytes = 512;  // the unit of st_blocks, whatever the file system

StorageLimits limits_of(const FileFacts& facts, const FileSettings& settings) {
  const bool regular = facts.kind != FileKind::kDevice;
  StorageLimits limits;
  limits.block_size = facts.block_size;
  limits.memory_alignment = facts.memory_alignment;
  limits.read_only = settings.read_only;
  limits.grows = regular;
  limits.grown_reads_zero = regular;
  limits.fast_zero = facts.unmaps;
  limits.unmaps = facts.unmaps && settings.discard;
  return limits;
}

}  // namespace

FileNode::FileNode(std::string name, uint32_t id, OpenedFile opened, FileSettings settings,
                   BlockingPool& pool)
    : StorageNode(std::move(name), id),
      descriptor_(std::move(opened.descriptor)),
      state_(descriptor_.get(), opened.facts, settings, id, pool),
      limits_(limits_of(opened.facts, settings)) {}

Task<ByteCount> FileNode::allocated_size() {
  const int fd = state_.fd;
  const bool regular = state_.is_regular();
  auto ask = [fd](Blocking) -> Result<ByteCount> {
    struct stat status {};
    if (fstat(fd, &status) != 0) return Error::from_errno(errno, "find disk size");
    return ByteCount(static_cast<uint64_t>(status.st_blocks) * kStatBlockBytes);
  };
  // A device node takes no blocks; what lies behind it is all there.
  if (!regular) co_return size();
  Result<ByteCount> asked = co_await run_blocking(state_.blocking, ask).result();
  if (!asked.ok()) co_return at_node(asked.error(), id());
  co_return std::move(asked);
}

Task<std::unique_ptr<StorageQueue>> FileNode::open_queue(Shard& shard) {
  CHECK(descriptor_.is_open());
  std::unique_ptr<StorageQueue> queue = std::make_unique<FileQueue>(state_, shard);
  co_return std::move(queue);
}

Task<void> FileNode::close() {
  const int fd = descriptor_.release();
  if (fd < 0) co_return;
  auto close_it = [fd](Blocking) -> Result<void> {
    // Linux has closed it even where it says EINTR.
    if (::close(fd) == 0 || errno == EINTR) return {};
    return Error::from_errno(errno, "close");
  };
  Result<void> closed = co_await run_blocking(state_.blocking, close_it).result();
  if (!closed.ok()) co_await fail(at_node(closed.error(), id()));
}

}  // namespace ringdisk::file
