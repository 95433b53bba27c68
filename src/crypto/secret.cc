// SPDX-License-Identifier: Apache-2.0
// Pages of their own for secrets, so that locking, excluding from dumps and giving back concern
// nothing else.
#include "crypto/secret.h"

#include <openssl/crypto.h>
#include <sys/mman.h>

#include <cerrno>

namespace ringdisk {
namespace {

constexpr size_t kPageBytes = 4096;

size_t whole_pages(size_t size) { return (size + kPageBytes - 1) / kPageBytes * kPageBytes; }

}  // namespace

void wipe(MutableBytes memory) {
  if (!memory.empty()) OPENSSL_cleanse(memory.data(), memory.size());
}

bool equal_in_constant_time(Bytes one, Bytes other) {
  if (one.size() != other.size()) return false;
  return one.empty() || CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0;
}

Result<SecretBytes> SecretBytes::make(size_t size) {
  SecretBytes secret;
  if (size == 0) return secret;
  const size_t mapped = whole_pages(size);
  CHECK_GE(mapped, size);
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return Error::from_errno(errno, "allocate memory for a secret");
  // Each of these makes it safer; none is a condition. A lock beyond RLIMIT_MEMLOCK is refused, and
  // then the pages may be swapped out, as all others.
  static_cast<void>(mlock(memory, mapped));
  static_cast<void>(madvise(memory, mapped, MADV_DONTDUMP));
  static_cast<void>(madvise(memory, mapped, MADV_WIPEONFORK));
  secret.memory_ = MutableBytes(static_cast<std::byte*>(memory), size);
  secret.mapped_bytes_ = mapped;
  return secret;
}

Result<SecretBytes> SecretBytes::copy_of(Bytes bytes) {
  ASSIGN_OR_RETURN(SecretBytes copy, make(bytes.size()));
  copy_bytes(bytes, copy.bytes());
  return copy;
}

SecretBytes SecretBytes::over(MutableBytes memory) {
  SecretBytes secret;
  secret.memory_ = memory;
  return secret;
}

void SecretBytes::shorten(size_t size) {
  CHECK_LE(size, memory_.size());
  wipe(memory_.subspan(size));
  memory_ = memory_.first(size);
}

void SecretBytes::release() {
  wipe(memory_);
  if (mapped_bytes_ != 0) munmap(memory_.data(), mapped_bytes_);
  memory_ = MutableBytes();
  mapped_bytes_ = 0;
}

}  // namespace ringdisk
