// SPDX-License-Identifier: Apache-2.0
// A question to the person at the terminal, whose answer is not shown. It goes to the controlling
// terminal, whatever the standard streams are. However it ends, the terminal is as it was: keys
// that would stop or kill the process in between do nothing but Ctrl-C, which is asked for through
// `stopped` (signals are read elsewhere, control/stop_signals.h).
#pragma once

#include <atomic>
#include <string>

#include "base/blocking.h"
#include "base/result.h"
#include "crypto/secret.h"

namespace ringdisk {

inline constexpr const char* kControllingTerminal = "/dev/tty";

// One line, without its line feed. kNotFound: there is no terminal at `terminal`. kInvalid: nothing
// was entered. kCancelled: `stopped` became true.
Result<SecretBytes> ask_at_terminal(Blocking token, const std::string& terminal,
                                    const std::string& question, const std::atomic<bool>& stopped);

}  // namespace ringdisk
