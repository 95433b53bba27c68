// SPDX-License-Identifier: Apache-2.0
// Taking and looking at the lock bytes.
#include "file/file_lock.h"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <string>

#include "base/diagnostics.h"

namespace ringdisk::file {
namespace {

constexpr off_t kUseBase = 100;
constexpr off_t kForbidBase = 200;

constexpr unsigned kConsistentRead = 1u << 0;
constexpr unsigned kWrite = 1u << 1;
constexpr unsigned kResize = 1u << 3;
constexpr unsigned kPermissions = 4;
constexpr std::array<const char*, kPermissions> kNames = {"consistent read", "write",
                                                          "write unchanged", "resize"};

struct Claim {
  unsigned uses;
  unsigned forbids;
};

Claim claim_of(LockUse use) {
  switch (use) {
    case LockUse::kRead:
      return {kConsistentRead, kWrite | kResize};
    case LockUse::kWrite:
      return {kConsistentRead | kWrite | kResize, kWrite | kResize};
    case LockUse::kReadShared:
      return {kConsistentRead, 0};
  }
  UNREACHABLE("there are three uses");
}

struct flock one_byte(short type, off_t at) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return lock;
}

// 0, or the errno.
int take_bytes(int fd, unsigned bits, off_t base) {
  for (unsigned bit = 0; bit < kPermissions; ++bit) {
    if (((bits >> bit) & 1u) == 0) continue;
    struct flock lock = one_byte(F_RDLCK, base + bit);
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) return errno;
  }
  return 0;
}

// Whether another description holds one of the bytes; `held` is then its number.
Result<bool> is_held(int fd, unsigned bits, off_t base, unsigned& held) {
  for (held = 0; held < kPermissions; ++held) {
    if (((bits >> held) & 1u) == 0) continue;
    struct flock lock = one_byte(F_WRLCK, base + held);
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return Error::from_errno(errno, "lock");
    if (lock.l_type != F_UNLCK) return true;
  }
  return false;
}

Error busy(bool offers_share, std::string lock_text, uint32_t node, Diagnostics& diagnostics) {
  std::string text = "is in use by another program (Failed to get " + lock_text + " lock); ";
  text += offers_share ? "use -U to read it anyway" : "end that program first";
  Error error = Error::of(ErrorKind::kBusy, "lock");
  error.errno_value = EAGAIN;
  return diagnostics.explain(error, node, std::move(text));
}

// What a file system without such locks answers.
bool means_no_locks(int errno_value) {
  return errno_value == EINVAL || errno_value == ENOLCK || errno_value == ENOSYS ||
         errno_value == ENOTSUP;
}

}  // namespace

Result<void> lock_file(Blocking, int fd, LockUse use, Locking locking, uint32_t node,
                       Diagnostics& diagnostics, bool offers_share) {
  if (locking == Locking::kOff) return {};
  const Claim claim = claim_of(use);
  offers_share = offers_share && use != LockUse::kWrite;
  int failure = take_bytes(fd, claim.uses, kUseBase);
  if (failure == 0) failure = take_bytes(fd, claim.forbids, kForbidBase);
  if (failure != 0) {
    const bool no_locks = means_no_locks(failure);
    if (no_locks && locking == Locking::kAuto) return {};
    Error error = at_node(Error::from_errno(failure, "lock"), node);
    // Somebody holds the byte exclusively, which QEMU never does.
    if (failure == EAGAIN || failure == EACCES) return busy(offers_share, "a", node, diagnostics);
    if (!no_locks) return error;
    return diagnostics.explain(error, "its file system has no locks; use locking=auto or off");
  }
  unsigned held = 0;
  ASSIGN_OR_RETURN(const bool forbidden, is_held(fd, claim.uses, kForbidBase, held));
  if (forbidden)
    return busy(offers_share, "\"" + std::string(kNames[held]) + "\"", node, diagnostics);
  ASSIGN_OR_RETURN(const bool used, is_held(fd, claim.forbids, kUseBase, held));
  if (used)
    return busy(offers_share, "shared \"" + std::string(kNames[held]) + "\"", node, diagnostics);
  return {};
}

}  // namespace ringdisk::file
