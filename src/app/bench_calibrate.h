// SPDX-License-Identifier: Apache-2.0
// `bench --calibrate`: a table of what ciphers and crossing between cores cost here.
#pragma once

#include "app/program.h"
#include "crypto/cpu_features.h"

namespace ringdisk {

// To the console; of the kernels that `features` has.
Task<void> show_calibration(Program& program, CpuFeatures features);

}  // namespace ringdisk
