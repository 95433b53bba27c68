// SPDX-License-Identifier: Apache-2.0
// `bench --calibrate`: a table of what ciphers and crossing between cores cost here.
#pragma once

#include "app/program.h"

namespace ringdisk {

// To the console.
Task<void> show_calibration(Program& program);

}  // namespace ringdisk
