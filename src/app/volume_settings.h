// SPDX-License-Identifier: Apache-2.0
// What options of every command say about encrypted volumes: the kernel of their ciphers
// (--cpu-features) and what their headers may ask for (--kdf-memory-max and its like).
#pragma once

#include "app/command_line.h"
#include "luks/volume_settings.h"

namespace ringdisk {

// Errors name the option.
Result<luks::VolumeSettings> volume_settings(const Arguments& arguments, Diagnostics& diagnostics);

}  // namespace ringdisk
