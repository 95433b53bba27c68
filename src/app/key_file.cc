// SPDX-License-Identifier: Apache-2.0
// Two options, with and without a file that they are parts of.
#include "app/key_file.h"

#include "base/units.h"

namespace ringdisk {

Result<KeyFilePart> key_file_part(const Arguments& arguments, const std::string& prefix,
                                  Diagnostics& diagnostics) {
  const std::string offset = prefix + "keyfile-offset", size = prefix + "keyfile-size";
  KeyFilePart part;
  if (!arguments.has(prefix + "key-file")) {
    if (!arguments.has(offset) && !arguments.has(size)) return part;
    return usage_error(diagnostics, "--" + (arguments.has(offset) ? offset : size) +
                                        " is a part of a file; name that with --" + prefix +
                                        "key-file=PATH");
  }
  ASSIGN_OR_RETURN(part.offset, size_argument(arguments, offset, 0, 0, kOffsetMax, diagnostics));
  if (arguments.has(size)) {
    ASSIGN_OR_RETURN(part.size,
                     size_argument(arguments, size, 0, 1, kSecretFileBytesMax, diagnostics));
  }
  return part;
}

}  // namespace ringdisk
