// SPDX-License-Identifier: Apache-2.0
// The end of a process that met a bug of its own. Writes with write(2) alone: the heap and stdio
// may be what broke.
#include "base/check.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace ringdisk {
namespace {

constexpr int kMessageBytesMax = 512;

[[noreturn]] void die(const char* message, int length) {
  if (length > kMessageBytesMax) length = kMessageBytesMax;
  if (length > 0 && write(STDERR_FILENO, message, static_cast<size_t>(length)) < 0) abort();
  abort();
}

}  // namespace

void check_failed(const char* file, int line, const char* condition) {
  char message[kMessageBytesMax];
  die(message, snprintf(message, sizeof message, "ringdisk: %s:%d: CHECK failed: %s\n", file, line,
                        condition));
}

void check_failed(const char* file, int line, const char* condition, uint64_t left,
                  uint64_t right) {
  char message[kMessageBytesMax];
  die(message,
      snprintf(message, sizeof message, "ringdisk: %s:%d: CHECK failed: %s (%llu and %llu)\n", file,
               line, condition, static_cast<unsigned long long>(left),
               static_cast<unsigned long long>(right)));
}

}  // namespace ringdisk
