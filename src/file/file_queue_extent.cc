// SPDX-License-Identifier: Apache-2.0
// Holes. The kernel says where they are with SEEK_DATA and SEEK_HOLE; neither call takes a bound,
// so on tmpfs, where the end of 512 MiB of content takes 20 ms to find (measured), they run in the
// pool. What was once found to be content is remembered: to call a later hole content costs a read,
// no more. A hole is never remembered.
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/diagnostics.h"
#include "file/file_queue.h"
#include "runtime/blocking_pool.h"
#include "runtime/shard.h"

namespace ringdisk::file {
namespace {

// What lseek said of the beginning of a range, without regard to its end.
struct Found {
  bool hole = false;
  uint64_t until = 0;  // how far it holds
};

Result<Found> seek(int fd, uint64_t offset, uint64_t size) {
  Found found;
  const off_t content = lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  if (content < 0) {
    if (errno != ENXIO) return Error::from_errno(errno, "find extent", offset);
    found.hole = true;  // nothing but a hole up to the end
    found.until = size;
    return found;
  }
  if (static_cast<uint64_t>(content) > offset) {
    found.hole = true;
    found.until = static_cast<uint64_t>(content);
    return found;
  }
  const off_t hole = lseek(fd, static_cast<off_t>(offset), SEEK_HOLE);
  if (hole < 0 && errno != ENXIO) return Error::from_errno(errno, "find extent", offset);
  // ENXIO: the file was cut meanwhile.
  found.until = hole < 0 ? size : static_cast<uint64_t>(hole);
  return found;
}

StorageExtent extent_of(uint64_t length, bool zero) {
  StorageExtent extent;
  extent.length = ByteCount(length);
  extent.zero = zero;
  return extent;
}

}  // namespace

Task<StorageExtent> FileQueue::find_extent(HostRange range) {
  const bool asks = state_.is_regular() && state_.seeks.load(std::memory_order_relaxed);
  if (!asks) co_return extent_of(range.length.value(), false);
  if (known_at_ == state_.holes_made() && known_content_.contains(range.offset)) {
    co_return extent_of(range.intersection(known_content_).length.value(), false);
  }
  co_return co_await seek_extent(range).result();
}

Task<StorageExtent> FileQueue::seek_extent(HostRange range) {
  const int fd = state_.fd;
  const uint64_t holes_made = state_.holes_made();
  const uint64_t offset = range.offset.value(), size = std::max(state_.size(), range.end().value());
  auto job = [fd, offset, size](Blocking) { return seek(fd, offset, size); };
  Result<Found> sought = Found();
  if (state_.facts.kind == FileKind::kLocal) {
    sought = seek(fd, offset, size);
  } else {
    sought = co_await run_blocking(state_.blocking, job).result();
  }
  if (!sought.ok()) {
    // A file system that cannot say, or an error that reading will show: all of it is content.
    if (sought.error().errno_value == EINVAL || sought.error().errno_value == EOPNOTSUPP) {
      state_.seeks.store(false, std::memory_order_relaxed);
    }
    co_return extent_of(range.length.value(), false);
  }
  const Found found = sought.value();
  const uint64_t until = std::max(found.until, offset + 1);
  if (!found.hole) {
    known_content_ = HostRange(range.offset, ByteCount(until - offset));
    known_at_ = holes_made;
  }
  co_return extent_of(std::min(until, range.end().value()) - offset, found.hole);
}

}  // namespace ringdisk::file
