// SPDX-License-Identifier: Apache-2.0
// The qcow2 format's FormatAdmin: create, describe, check. Made in main; any shard.
#pragma once

#include <memory>

#include "block/format_admin.h"

namespace ringdisk {

class DataEncryption;

// `encryption`, which outlives it, is what encrypted images have; null: none is made.
std::unique_ptr<FormatAdmin> make_qcow2_admin(const DataEncryption* encryption = nullptr);

}  // namespace ringdisk
