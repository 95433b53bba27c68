// SPDX-License-Identifier: Apache-2.0
// A secret out of a file: all of its bytes, line feeds too, as cryptsetup reads key files and QEMU
// file= secrets. "fd:N" and "/dev/fd/N" are a descriptor that this process was started with, which
// is how a service manager passes one; it is read to its end, once. "-" is standard input. An empty
// file holds an empty secret; what is no file and gives nothing (a pipe whose writer failed) holds
// none, as cryptsetup has it.
#pragma once

#include <optional>
#include <string>

#include "base/blocking.h"
#include "base/result.h"
#include "crypto/secret.h"

namespace ringdisk {

class Diagnostics;

// What of a file is the secret; --keyfile-offset and --keyfile-size of cryptsetup.
struct KeyFilePart {
  uint64_t offset = 0;           // in bytes; what cannot be sought in (a pipe) is read up to there
  std::optional<uint64_t> size;  // nullopt: to the end. The file has to have it all.
};

// Files hold no more than that (cryptsetup's limit of key files).
inline constexpr size_t kSecretFileBytesMax = 8 << 20;

Result<SecretBytes> read_secret_file(Blocking token, const std::string& path,
                                     Diagnostics& diagnostics, KeyFilePart part = {});

}  // namespace ringdisk
