// SPDX-License-Identifier: Apache-2.0
// Hash functions by the names that disk formats record ("sha256"), and their digests. Pure; any
// thread. Which of them there are is OpenSSL's affair. Some (whirlpool, md4) come from its legacy
// provider, which is loaded by the first who asks for one, into a library context of this folder's
// own: nothing else in the process (TLS) sees it.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace ringdisk {

enum class Hash : uint8_t {
  kSha1,
  kSha224,
  kSha256,
  kSha384,
  kSha512,
  kSha3_224,
  kSha3_256,
  kSha3_384,
  kSha3_512,
  kRipemd160,
  kWhirlpool,
  kBlake2b512,
  kBlake2s256,
  kSm3,
  kSha512_224,
  kSha512_256,
  kMd5,
  kMd4,
  kMd5Sha1,
};

// As LUKS and the kernel write them, or one of OpenSSL's other names for the same ("sha2-256",
// "rmd160"), which cryptsetup writes into headers too; letters of either case. nullopt: no such
// name is known.
std::optional<Hash> find_hash(std::string_view name);
// The name that formats record, in small letters.
std::string_view name_of(Hash hash);
// Bytes; at most kDigestBytesMax.
size_t digest_size(Hash hash);
inline constexpr size_t kDigestBytesMax = 64;

// Whether this OpenSSL has it. What needs a hash asks before it changes anything.
bool is_available(Hash hash);
// Only those of this name that are available.
std::optional<Hash> find_available_hash(std::string_view name);
// For the user, after "the hash '…', which ": why none of this name is available, and what to do.
std::string_view why_unavailable(std::string_view name);

// The first target.size() bytes of the digest of `parts`, one after the other. target.size() is at
// most digest_size(hash). kUnsupported: this OpenSSL has no such hash.
Result<void> compute_digest(Hash hash, std::initializer_list<Bytes> parts, MutableBytes target);

}  // namespace ringdisk
