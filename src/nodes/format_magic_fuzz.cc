// SPDX-License-Identifier: Apache-2.0
// Any first sector is looked at without harm, and bytes behind it change nothing.
#include "nodes/format_magic.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  const ringdisk::Bytes bytes = std::as_bytes(std::span(input, size));
  const std::string_view format = ringdisk::announced_format(bytes);
  if (size > ringdisk::kFormatMagicBytes) {
    const ringdisk::Bytes first = bytes.first(ringdisk::kFormatMagicBytes);
    if (ringdisk::announced_format(first) != format) __builtin_trap();
  }
  return 0;
}
