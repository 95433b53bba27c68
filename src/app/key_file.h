// SPDX-License-Identifier: Apache-2.0
// Which part of a key file is the passphrase: --keyfile-offset and --keyfile-size, called as
// cryptsetup calls them, for --key-file and, as --new-keyfile-…, for --new-key-file. Pure.
#pragma once

#include <string>

#include "app/command_line.h"
#include "control/secret_file.h"

namespace ringdisk {

// `prefix`: "", or "new-". Errors name the option.
Result<KeyFilePart> key_file_part(const Arguments& arguments, const std::string& prefix,
                                  Diagnostics& diagnostics);

}  // namespace ringdisk
