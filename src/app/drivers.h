// SPDX-License-Identifier: Apache-2.0
// The one list of concrete drivers: storages, filters, formats, and what creates and checks
// formats.
#pragma once

#include <memory>
#include <vector>

#include "block/data_encryption.h"
#include "block/format_admin.h"
#include "block/graph.h"
#include "luks/volume_settings.h"

namespace ringdisk {

// `encryption`, of images that have metadata of their own, outlives what is made here.
// `settings`: of all LUKS volumes. `offers_share`: the command has -U.
Drivers make_drivers(const DataEncryption& encryption, luks::VolumeSettings settings,
                     bool offers_share);
std::vector<std::unique_ptr<FormatAdmin>> make_format_admins(const DataEncryption& encryption,
                                                             luks::VolumeSettings settings);

}  // namespace ringdisk
