// SPDX-License-Identifier: Apache-2.0
// The driver `file`: its options, opening and creating.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <type_traits>

#include "base/diagnostics.h"
#include "file/file_hints.h"
#include "file/file_lock.h"
#include "file/file_node.h"
#include "runtime/blocking_pool.h"
#include "runtime/shard.h"

namespace ringdisk::file {
namespace {

constexpr mode_t kCreatedMode = 0644;

// A process that was killed holds its locks until the kernel has taken its io_uring apart, which is
// some milliseconds after it is gone for those who waited for it. So a lock that is refused is
// asked for again, after these pauses: 100 ms in all.
constexpr std::array<Duration, 4> kLockPauses = {
    std::chrono::milliseconds(5), std::chrono::milliseconds(15), std::chrono::milliseconds(30),
    std::chrono::milliseconds(50)};

// try_once(Blocking) locks a file, or fails with kBusy and holds nothing then.
template <class Try>
auto lock_patiently(const World& world, Try try_once)
    -> Task<typename std::invoke_result_t<Try&, Blocking>::value_type> {
  using T = typename std::invoke_result_t<Try&, Blocking>::value_type;
  Result<T> tried = co_await run_blocking(world.blocking, try_once).result();
  for (Duration pause : kLockPauses) {
    if (tried.ok() || tried.error().kind != ErrorKind::kBusy) break;
    Result<void> slept = co_await Shard::current().sleep(pause);
    static_cast<void>(slept.ok());
    tried = co_await run_blocking(world.blocking, try_once).result();
  }
  if constexpr (std::is_void_v<T>) {
    co_await std::move(tried);
  } else {
    co_return std::move(tried);
  }
}

struct FileOptions {
  FileRequest request;
  FileSettings settings;
  Locking locking = Locking::kAuto;
};

Result<std::string> take_filename(Options& options, Diagnostics& diagnostics) {
  std::optional<std::string> filename = options.take("filename");
  if (filename && !filename->empty() && filename->find('\0') == std::string::npos) {
    return *filename;
  }
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                             "the driver 'file' needs a filename");
}

Result<Locking> take_locking(Options& options, Diagnostics& diagnostics) {
  const std::string text = options.take("locking").value_or("auto");
  if (text == "auto") return Locking::kAuto;
  if (text == "on") return Locking::kOn;
  if (text == "off") return Locking::kOff;
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                             "locking is auto, on or off, not '" + text + "'");
}

// How requests reach a file is measured here (decision 0004); QEMU's words for it are let pass.
Result<void> take_aio(Options& options, Diagnostics& diagnostics) {
  const std::string text = options.take("aio").value_or("threads");
  if (text == "threads" || text == "native" || text == "io_uring") return {};
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                             "aio is threads, native or io_uring, not '" + text + "'");
}

Result<bool> take_discard(Options& options, Diagnostics& diagnostics) {
  const std::string text = options.take("discard").value_or("unmap");
  if (text == "unmap" || text == "on") return true;
  if (text == "ignore" || text == "off") return false;
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                             "discard is unmap or ignore, not '" + text + "'");
}

CacheMode with_direct(CacheMode cache, bool direct) {
  const bool durable = is_write_durable(cache);
  if (direct) return durable ? CacheMode::kDirectsync : CacheMode::kNone;
  return durable ? CacheMode::kWritethrough : CacheMode::kWriteback;
}

Result<CacheMode> take_cache(Options& options, CacheMode given, Diagnostics& diagnostics) {
  CacheMode cache = given;
  if (std::optional<std::string> text = options.take("cache")) {
    Result<CacheMode> parsed = parse_cache_mode(*text);
    if (!parsed.ok()) {
      return diagnostics.explain(parsed.error(), "there is no cache mode '" + *text + "'");
    }
    cache = parsed.value();
  }
  if (options.has("cache.direct")) {
    ASSIGN_OR_RETURN(const bool direct, options.take_bool("cache.direct", false, diagnostics));
    if (direct != is_direct(cache)) cache = with_direct(cache, direct);
  }
  ASSIGN_OR_RETURN(const bool no_flush, options.take_bool("cache.no-flush", false, diagnostics));
  if (no_flush && is_direct(cache)) {
    return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                               "cache.no-flush and cache.direct exclude each other");
  }
  return no_flush ? CacheMode::kUnsafe : cache;
}

Result<FileOptions> take_options(Options& options, OpenMode mode, Diagnostics& diagnostics) {
  FileOptions file;
  ASSIGN_OR_RETURN(file.request.filename, take_filename(options, diagnostics));
  ASSIGN_OR_RETURN(file.request.cache, take_cache(options, mode.cache, diagnostics));
  ASSIGN_OR_RETURN(file.locking, take_locking(options, diagnostics));
  ASSIGN_OR_RETURN(file.settings.discard, take_discard(options, diagnostics));
  RETURN_IF_ERROR(take_aio(options, diagnostics));
  // How it was made: who makes a file opens it by the same description.
  RETURN_IF_ERROR(take_file_hints(options, diagnostics));
  RETURN_IF_ERROR(options.check_all_taken("file", diagnostics));
  if (mode.share && !mode.read_only) {
    return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                               "what others may be writing to (-U) can only be read");
  }
  file.request.read_only = mode.read_only;
  file.settings.read_only = mode.read_only;
  file.settings.cache = file.request.cache;
  return file;
}

LockUse lock_use(OpenMode mode) {
  if (!mode.read_only) return LockUse::kWrite;
  return mode.share ? LockUse::kReadShared : LockUse::kRead;
}

Task<std::unique_ptr<StorageNode>> open_file_node(const World& world, Options options,
                                                  OpenMode mode, bool offers_share) {
  Diagnostics& diagnostics = world.diagnostics;
  FileOptions file = co_await take_options(options, mode, diagnostics);
  const uint32_t id = diagnostics.add_node(file.request.filename);
  auto open_it = [&](Blocking token) -> Result<OpenedFile> {
    ASSIGN_OR_RETURN(OpenedFile opened, open_file(token, file.request, id, diagnostics));
    RETURN_IF_ERROR(lock_file(token, opened.descriptor.get(), lock_use(mode), file.locking, id,
                              diagnostics, offers_share));
    return opened;
  };
  OpenedFile opened = co_await lock_patiently(world, open_it);
  std::unique_ptr<StorageNode> node = std::make_unique<FileNode>(
      file.request.filename, id, std::move(opened), file.settings, world.blocking);
  co_return std::move(node);
}

// Not O_TRUNC: what somebody else is using must not be cut before we know.
Result<void> create_file(Blocking token, const std::string& filename, ByteCount size,
                         Locking locking, const FileHints& hints, uint32_t id,
                         Diagnostics& diagnostics) {
  auto failed = [id] { return at_node(Error::from_errno(errno, "create"), id); };
  FileDescriptor descriptor(
      open(filename.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, kCreatedMode));
  if (!descriptor.is_open()) return failed();
  const int fd = descriptor.get();
  struct stat status {};
  if (fstat(fd, &status) != 0) return failed();
  RETURN_IF_ERROR(lock_file(token, fd, LockUse::kWrite, locking, id, diagnostics));
  if (S_ISBLK(status.st_mode)) {
    const off_t end = lseek(fd, 0, SEEK_END);
    if (end < 0) return failed();
    if (static_cast<uint64_t>(end) >= size.value()) return {};
    return diagnostics.explain(Error::of(ErrorKind::kNoSpace, "create"), id,
                               "the device has only " + std::to_string(end) + " bytes, not " +
                                   std::to_string(size.value()));
  }
  if (!S_ISREG(status.st_mode)) {
    return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "create"), id,
                               "it is neither a regular file nor a block device");
  }
  if (ftruncate(fd, 0) != 0) return failed();
  give_file_hints(token, fd, hints);
  if (ftruncate(fd, static_cast<off_t>(size.value())) != 0) return failed();
  if (close(descriptor.release()) != 0 && errno != EINTR) return failed();
  return {};
}

Task<void> create_file_storage(const World& world, Options options, ByteCount size) {
  Diagnostics& diagnostics = world.diagnostics;
  const std::string filename = co_await take_filename(options, diagnostics);
  const Locking locking = co_await take_locking(options, diagnostics);
  const FileHints hints = co_await take_file_hints(options, diagnostics);
  co_await options.check_all_taken("file", diagnostics);
  const uint32_t id = diagnostics.add_node(filename);
  if (size.value() > kOffsetMax) {
    co_await fail(at_node(Error::from_errno(EFBIG, "create", size.value()), id));
  }
  auto create_it = [&](Blocking token) {
    return create_file(token, filename, size, locking, hints, id, diagnostics);
  };
  co_await lock_patiently(world, create_it);
}

}  // namespace

StorageDriver file_driver(bool offers_share) {
  StorageDriver driver;
  driver.name = "file";
  driver.words = {"filename", "cache",   "cache.direct", "cache.no-flush",
                  "locking",  "discard", "aio"};
  driver.open = [offers_share](const World& world, Options options, OpenMode mode) {
    return open_file_node(world, std::move(options), mode, offers_share);
  };
  driver.create = create_file_storage;
  return driver;
}

}  // namespace ringdisk::file
