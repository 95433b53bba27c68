// SPDX-License-Identifier: Apache-2.0
// open, fstat, and the questions to kernel and file system that tell how a file wants to be
// treated.
#include "file/file_facts.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <memory>
#include <string_view>

#include "base/bytes.h"
#include "base/diagnostics.h"
#include "base/limits.h"

namespace ringdisk::file {
namespace {

// XFS's number is in no public header.
constexpr unsigned long kXfsMagic = 0x58465342;
// What a probe of O_DIRECT reads, at most; every device's block is a part of it.
constexpr size_t kProbeBytes = limits::kBlockSizeMax;

struct alignas(4096) ProbeMemory {
  std::array<std::byte, kProbeBytes> bytes;
};

Error error_here(const char* operation, uint32_t node) {
  return at_node(Error::from_errno(errno, operation), node);
}

Result<FileDescriptor> open_descriptor(const FileRequest& request, uint32_t node,
                                       Diagnostics& diagnostics) {
  // O_NONBLOCK: so that opening a pipe by mistake does not wait for its other end.
  int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (request.read_only ? O_RDONLY : O_RDWR);
  if (is_direct(request.cache)) flags |= O_DIRECT;
  FileDescriptor descriptor(open(request.filename.c_str(), flags));
  if (!descriptor.is_open()) {
    const Error error = error_here("open", node);
    if (error.errno_value == EINVAL && is_direct(request.cache)) {
      return diagnostics.explain(error, "its file system has no O_DIRECT, which cache mode '" +
                                            std::string(name_of(request.cache)) +
                                            "' needs; use writeback or writethrough");
    }
    return error;
  }
  // The loops would take O_NONBLOCK for the wish not to wait for the device.
  if (fcntl(descriptor.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) return error_here("open", node);
  return descriptor;
}

// Reads `length` bytes at offset 0 into memory that is aligned to `alignment` and no better.
bool can_read_direct(int fd, ProbeMemory& memory, size_t length, size_t alignment) {
  std::byte* target = memory.bytes.data();
  if (alignment < kProbeBytes / 2) target += alignment;
  return pread(fd, target, length, 0) >= 0;
}

// The alignments O_DIRECT wants: what the kernel says, or what it accepts.
Result<void> find_direct_alignment(int fd, FileFacts& facts, uint32_t node) {
  uint32_t offset_alignment = 0, memory_alignment = 0;
#ifdef STATX_DIOALIGN
  struct statx status {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0) {
    offset_alignment = status.stx_dio_offset_align;
    memory_alignment = status.stx_dio_mem_align;
  }
#endif
  if (offset_alignment == 0) {
    auto memory = std::make_unique<ProbeMemory>();
    for (uint32_t size = 512; size <= kProbeBytes / 2; size *= 2) {
      if (!can_read_direct(fd, *memory, size, size)) continue;
      offset_alignment = memory_alignment = size;
      break;
    }
  }
  offset_alignment = std::max(offset_alignment, facts.block_size);
  // One number for both: then a transfer may be cut between any two pieces of memory.
  offset_alignment = std::max(offset_alignment, memory_alignment);
  if (!std::has_single_bit(offset_alignment) || offset_alignment > limits::kBlockSizeMax) {
    return at_node(Error::of(ErrorKind::kUnsupported, "find O_DIRECT alignment"), node);
  }
  facts.block_size = facts.memory_alignment = offset_alignment;
  return {};
}

// Whether the device says that it can discard; /sys/dev/block/8:1 is a partition, its disk lies
// above.
bool device_discards(dev_t device) {
  const std::string base =
      "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  for (const char* queue : {"/queue/discard_max_bytes", "/../queue/discard_max_bytes"}) {
    FileDescriptor file(open((base + queue).c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 2> first{};
    if (!file.is_open() || read(file.get(), first.data(), 1) != 1) continue;
    return first[0] != '0';
  }
  return false;
}

Result<void> find_device_facts(int fd, const struct stat& status, FileFacts& facts, uint32_t node) {
  facts.kind = FileKind::kDevice;
  facts.direct_writes_parallel = true;
  int sector = 0;
  if (ioctl(fd, BLKGETSIZE64, &facts.size) != 0) return error_here("find device size", node);
  if (ioctl(fd, BLKSSZGET, &sector) != 0) return error_here("find device block size", node);
  if (sector <= 0 || !std::has_single_bit(static_cast<unsigned>(sector)) ||
      static_cast<unsigned>(sector) > limits::kBlockSizeMax) {
    return at_node(Error::of(ErrorKind::kUnsupported, "find device block size"), node);
  }
  facts.block_size = static_cast<uint32_t>(sector);
  facts.unmaps = device_discards(status.st_rdev);
  return {};
}

// Whether the file system answers RWF_NOWAIT at all. An empty file answers 0, a cold one EAGAIN.
bool knows_nowait(int fd, bool direct) {
  if (direct) return true;  // not asked: O_DIRECT never probes
  std::array<std::byte, 4096> target;
  const iovec part{target.data(), target.size()};
  return preadv2(fd, &part, 1, 0, RWF_NOWAIT) >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS);
}

Result<void> find_regular_facts(int fd, bool direct, FileFacts& facts, uint32_t node) {
  struct statfs system {};
  if (fstatfs(fd, &system) != 0) return error_here("find file system", node);
  const auto magic = static_cast<unsigned long>(system.f_type);
  facts.overlayfs = magic == OVERLAYFS_SUPER_MAGIC;
  facts.direct_writes_parallel = magic == EXT4_SUPER_MAGIC || magic == kXfsMagic;
  const bool known = magic == EXT4_SUPER_MAGIC || magic == kXfsMagic ||
                     magic == BTRFS_SUPER_MAGIC || magic == F2FS_SUPER_MAGIC;
  if (magic == TMPFS_MAGIC || magic == RAMFS_MAGIC) {
    facts.kind = FileKind::kMemory;
    facts.unmaps = magic == TMPFS_MAGIC;
  } else {
    const bool opaque = facts.overlayfs || magic == NFS_SUPER_MAGIC || magic == FUSE_SUPER_MAGIC ||
                        !knows_nowait(fd, direct);
    facts.kind = opaque ? FileKind::kOpaque : FileKind::kLocal;
    facts.unmaps = known || facts.overlayfs;
  }
  return {};
}

}  // namespace

Result<OpenedFile> open_file(Blocking, const FileRequest& request, uint32_t node,
                             Diagnostics& diagnostics) {
  OpenedFile opened;
  ASSIGN_OR_RETURN(opened.descriptor, open_descriptor(request, node, diagnostics));
  const int fd = opened.descriptor.get();
  const bool direct = is_direct(request.cache);
  struct stat status {};
  if (fstat(fd, &status) != 0) return error_here("open", node);
  if (S_ISBLK(status.st_mode)) {
    RETURN_IF_ERROR(find_device_facts(fd, status, opened.facts, node));
  } else if (S_ISREG(status.st_mode)) {
    opened.facts.size = static_cast<uint64_t>(status.st_size);
    RETURN_IF_ERROR(find_regular_facts(fd, direct, opened.facts, node));
  } else if (S_ISDIR(status.st_mode)) {
    return at_node(Error::from_errno(EISDIR, "open"), node);
  } else {
    return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "open"), node,
                               "it is neither a regular file nor a block device");
  }
  if (direct) RETURN_IF_ERROR(find_direct_alignment(fd, opened.facts, node));
  return opened;
}

}  // namespace ringdisk::file
