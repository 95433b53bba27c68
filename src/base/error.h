// SPDX-License-Identifier: Apache-2.0
// Error: an expected failure, small (32 bytes), trivially copyable, made without allocation. It
// says what kind of failure it is, the errno that caused it, the operation, the node and the
// offset. Its text is made at the edge (the command line, a log line), where Diagnostics turns
// `node` into a name and `note` into the sentence that tells the user what to do next. An errno is
// never lost on the way; a protocol translates it to its own code only at its edge.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

namespace ringdisk {

enum class ErrorKind : uint8_t {
  kIo,           // the device, file system or network failed
  kInvalid,      // the request or option makes no sense (past the end, not aligned, contradicting)
  kUnsupported,  // right, but not something this program (or this kernel) can do
  kCorrupt,      // an image or a table in it is damaged or hostile
  kNotFound,     // a file, an export, a node is not there
  kDenied,       // permission of the system, of a read-only node, of the open gate
  kBusy,         // somebody else has it locked
  kNoSpace,      // disk or quota full
  kLimit,        // a limit of base/limits.h would be exceeded
  kProtocol,     // a peer broke its protocol or went away
  kTimeout,      // a bound on waiting ran out
  kCancelled,    // the work was called off by its scope
};

// The name of a kind as it stands in messages and JSON, such as "no-space".
std::string_view name_of(ErrorKind kind);

struct Error {
  static constexpr uint64_t kNoOffset = ~uint64_t{0};

  const char* operation = "";   // a literal: "read", "open", "parse header"
  uint64_t offset = kNoOffset;  // bytes, guest or host as the operation says
  int32_t errno_value = 0;      // always set: the cause, or the closest errno there is
  uint32_t node = 0;            // an id given by Diagnostics; 0: none
  uint32_t note = 0;            // a text kept by Diagnostics; 0: none
  ErrorKind kind = ErrorKind::kIo;

  // A failed system call, or a completion's negated result. `errno_value` is positive.
  static Error from_errno(int errno_value, const char* operation, uint64_t offset = kNoOffset);
  // A failure that this program found itself; the errno is the one that fits the kind.
  static Error of(ErrorKind kind, const char* operation, uint64_t offset = kNoOffset);
};
static_assert(sizeof(Error) == 32 && std::is_trivially_copyable_v<Error>);

// The errno that stands for a kind where no system call gave one.
int errno_of(ErrorKind kind);

}  // namespace ringdisk
