// SPDX-License-Identifier: Apache-2.0
// The two translations between errno values and error kinds. They are not inverse: a kind gathers
// many errno values.
#include "base/error.h"

#include <cerrno>

#include "base/check.h"

namespace ringdisk {

std::string_view name_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kIo:
      return "io";
    case ErrorKind::kInvalid:
      return "invalid";
    case ErrorKind::kUnsupported:
      return "unsupported";
    case ErrorKind::kCorrupt:
      return "corrupt";
    case ErrorKind::kNotFound:
      return "not-found";
    case ErrorKind::kDenied:
      return "denied";
    case ErrorKind::kBusy:
      return "busy";
    case ErrorKind::kNoSpace:
      return "no-space";
    case ErrorKind::kLimit:
      return "limit";
    case ErrorKind::kProtocol:
      return "protocol";
    case ErrorKind::kTimeout:
      return "timeout";
    case ErrorKind::kCancelled:
      return "cancelled";
  }
  UNREACHABLE("every ErrorKind has a name");
}

int errno_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kIo:
      return EIO;
    case ErrorKind::kInvalid:
      return EINVAL;
    case ErrorKind::kUnsupported:
      return ENOTSUP;
    case ErrorKind::kCorrupt:
      return EIO;
    case ErrorKind::kNotFound:
      return ENOENT;
    case ErrorKind::kDenied:
      return EPERM;
    case ErrorKind::kBusy:
      return EBUSY;
    case ErrorKind::kNoSpace:
      return ENOSPC;
    case ErrorKind::kLimit:
      return EOVERFLOW;
    case ErrorKind::kProtocol:
      return EPROTO;
    case ErrorKind::kTimeout:
      return ETIMEDOUT;
    case ErrorKind::kCancelled:
      return ECANCELED;
  }
  UNREACHABLE("every ErrorKind has an errno");
}

static ErrorKind kind_of(int errno_value) {
  switch (errno_value) {
    case EINVAL:
    case ENAMETOOLONG:
    case EISDIR:
    case ENOTDIR:
    case EBADF:
    case EEXIST:
      return ErrorKind::kInvalid;
    case ENOTSUP:
    case ENOSYS:
    case ENOTTY:
    case ENODEV:
      return ErrorKind::kUnsupported;
    case ENOENT:
      return ErrorKind::kNotFound;
    case EPERM:
    case EACCES:
    case EROFS:
      return ErrorKind::kDenied;
    case EBUSY:
    case EAGAIN:
    case ETXTBSY:
      return ErrorKind::kBusy;
    case ENOSPC:
    case EDQUOT:
      return ErrorKind::kNoSpace;
    case EFBIG:
    case EOVERFLOW:
    case E2BIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return ErrorKind::kLimit;
    case EPROTO:
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
      return ErrorKind::kProtocol;
    case ETIMEDOUT:
      return ErrorKind::kTimeout;
    case ECANCELED:
      return ErrorKind::kCancelled;
    default:
      return ErrorKind::kIo;
  }
}

Error Error::from_errno(int errno_value, const char* operation, uint64_t offset) {
  CHECK_GT(errno_value, 0);
  Error error;
  error.operation = operation;
  error.offset = offset;
  error.errno_value = errno_value;
  error.kind = kind_of(errno_value);
  return error;
}

Error Error::of(ErrorKind kind, const char* operation, uint64_t offset) {
  Error error;
  error.operation = operation;
  error.offset = offset;
  error.errno_value = errno_of(kind);
  error.kind = kind;
  return error;
}

}  // namespace ringdisk
