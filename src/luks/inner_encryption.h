// SPDX-License-Identifier: Apache-2.0
// LUKS inside another format's image (encrypt.format=luks of qcow2): a LUKS1 header somewhere in
// the file, and guest data enciphered where the format puts it. IVs count the file's sectors from
// its first byte on, and the header's payload offset means nothing, as QEMU has it.
#pragma once

#include <memory>

#include "block/data_encryption.h"
#include "luks/volume_settings.h"

namespace ringdisk {

std::unique_ptr<DataEncryption> make_luks_encryption(luks::VolumeSettings settings);

}  // namespace ringdisk
