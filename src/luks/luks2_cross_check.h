// SPDX-License-Identifier: Apache-2.0
// What the objects of a LUKS2 header say of one another and of their places. Pure; part of
// read_luks2_metadata().
#pragma once

#include "luks/luks2_metadata.h"

namespace ringdisk::luks {

Result<void> cross_check_luks2(const Luks2Metadata& metadata, uint64_t header_bytes,
                               const Refusal& refusal);

}  // namespace ringdisk::luks
