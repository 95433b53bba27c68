// SPDX-License-Identifier: Apache-2.0
// VolumeSettings: what an application says about all the volumes it opens. Set in main, handed down
// by value; the options of one image may say otherwise.
#pragma once

#include "crypto/cpu_features.h"
#include "luks/kdf_limits.h"

namespace ringdisk::luks {

struct VolumeSettings {
  CpuFeatures features;
  KdfLimits kdf_limits = {};
};

}  // namespace ringdisk::luks
