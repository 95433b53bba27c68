// SPDX-License-Identifier: Apache-2.0
// Secrets as QEMU's users write them: --object secret,id=sec0,file=PATH,format=base64. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "crypto/secret.h"

namespace ringdisk {

class Diagnostics;

struct SecretOption {
  std::string id;
  bool is_file = false;  // `value` names the file that holds it; else it is the secret
  bool is_base64 = false;
  std::string value;
};

// "secret,id=ID,data=TEXT|file=PATH[,format=raw|base64]", commas in values doubled.
Result<SecretOption> parse_secret_option(std::string_view text, Diagnostics& diagnostics);

// RFC 4648's base64 with its padding; line feeds between the letters are skipped, as QEMU does.
// kInvalid for anything else.
Result<SecretBytes> decode_base64_secret(Bytes text);

}  // namespace ringdisk
