// SPDX-License-Identifier: Apache-2.0
// The places of standard input, output and error, where whoever starts us has closed one: the next
// file that is opened would get its number, and with it what we print, or be read as a passphrase.
#pragma once

#include "base/result.h"

namespace ringdisk {

// Puts into each place that is closed a file that refuses the stream's use: writing fails with
// EBADF, as does reading. First of all, before anything opens a file.
Result<void> occupy_standard_streams();

}  // namespace ringdisk
