// SPDX-License-Identifier: Apache-2.0
// The -o options of a new LUKS volume in qemu-img's words (cipher-alg=aes-256, cipher-mode=xts),
// and what is ours besides: version, sector-size, the pbkdf. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "block/options.h"
#include "luks/format.h"

namespace ringdisk::luks {

using OptionLines = std::vector<std::pair<std::string, std::string>>;

// What every volume takes, one line each; `with_version2` adds what only LUKS2 has.
OptionLines cipher_option_lines(bool with_version2);

// Takes those out of `options`. Version 1 is the default, as qemu-img's. kInvalid and kUnsupported
// name the option; the rest plan_format() judges.
Result<FormatRequest> take_format_options(Options& options, Diagnostics& diagnostics);

// "aes-256" for aes with a key of 64 bytes in xts mode, where half of it is the tweak's.
std::string qemu_cipher_name(const CipherSpec& cipher, size_t key_bytes);

}  // namespace ringdisk::luks
