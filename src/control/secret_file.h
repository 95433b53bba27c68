// SPDX-License-Identifier: Apache-2.0
// A secret out of a file: all of its bytes, line feeds too, as cryptsetup reads key files and QEMU
// file= secrets. "fd:N" and "/dev/fd/N" are a descriptor that this process was started with, which
// is how a service manager passes one; it is read to its end, once. "-" is standard input. An empty
// file holds an empty secret; what is no file and gives nothing (a pipe whose writer failed) holds
// none, as cryptsetup has it.
#pragma once

#include <string>

#include "base/blocking.h"
#include "base/result.h"
#include "crypto/secret.h"

namespace ringdisk {

class Diagnostics;

// Files hold no more than that (cryptsetup's limit of key files).
inline constexpr size_t kSecretFileBytesMax = 8 << 20;

Result<SecretBytes> read_secret_file(Blocking token, const std::string& path,
                                     Diagnostics& diagnostics);

}  // namespace ringdisk
