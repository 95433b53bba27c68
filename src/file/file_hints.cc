// SPDX-License-Identifier: Apache-2.0
// Two calls, neither of which has to succeed.
#include "file/file_hints.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

#include "base/diagnostics.h"

namespace ringdisk::file {
namespace {

constexpr uint64_t kExtentBytesMax = uint64_t{1} << 30;

void turn_off_copy_on_write(int descriptor) {
  int flags = 0;
  if (ioctl(descriptor, FS_IOC_GETFLAGS, &flags) != 0) return;
  flags |= FS_NOCOW_FL;
  static_cast<void>(ioctl(descriptor, FS_IOC_SETFLAGS, &flags));
}

void ask_for_extents(int descriptor, uint32_t bytes) {
  struct fsxattr attributes {};
  if (ioctl(descriptor, FS_IOC_FSGETXATTR, &attributes) != 0) return;
  attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
  attributes.fsx_extsize = bytes;
  static_cast<void>(ioctl(descriptor, FS_IOC_FSSETXATTR, &attributes));
}

}  // namespace

Result<FileHints> take_file_hints(Options& options, Diagnostics& diagnostics) {
  FileHints hints;
  ASSIGN_OR_RETURN(hints.no_copy_on_write, options.take_bool("nocow", false, diagnostics));
  ASSIGN_OR_RETURN(const uint64_t bytes, options.take_size("extent_size_hint", 0, diagnostics));
  if (bytes > kExtentBytesMax) {
    return diagnostics.explain(Error::of(ErrorKind::kInvalid, "create"),
                               "extent_size_hint is at most 1G");
  }
  hints.extent_bytes = static_cast<uint32_t>(bytes);
  return hints;
}

void give_file_hints(Blocking, int descriptor, const FileHints& hints) {
  if (hints.no_copy_on_write) turn_off_copy_on_write(descriptor);
  if (hints.extent_bytes != 0) ask_for_extents(descriptor, hints.extent_bytes);
}

}  // namespace ringdisk::file
