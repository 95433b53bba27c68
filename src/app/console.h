// SPDX-License-Identifier: Apache-2.0
// Console: where a command's own text goes: results to standard output, remarks to standard error.
// Made in main(); one thread, shard 0's. Errors are not written here but returned, and main()
// prints them once.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace ringdisk {

class Console {
 public:
  // Buffered up to flush() or the end.
  void write(std::string_view text);
  // To standard error, at once.
  void remark(std::string_view text);
  // An error when something could not be written (a full disk, a closed pipe).
  Result<void> flush();

  bool is_terminal() const;         // standard output
  bool is_remark_terminal() const;  // standard error
  uint32_t columns() const;         // of the terminal behind standard error, or 80
};

}  // namespace ringdisk
