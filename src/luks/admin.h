// SPDX-License-Identifier: Apache-2.0
// What only LUKS can do to its images: make them (both versions, headers of their own files),
// describe and check headers, change key slots, another size. Made in main; any shard.
#pragma once

#include <memory>

#include "block/format_admin.h"
#include "luks/kdf_limits.h"

namespace ringdisk {

// `limits` bound what headers may ask for where key slots are opened.
std::unique_ptr<FormatAdmin> make_luks_admin(luks::KdfLimits limits = {});

}  // namespace ringdisk
