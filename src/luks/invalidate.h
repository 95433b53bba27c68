// SPDX-License-Identifier: Apache-2.0
// What comes before a new header: the old one becomes none.
#pragma once

#include "luks/header_window.h"

namespace ringdisk::luks {

// Whatever header is there is none afterwards, durably: neither its first copy nor a second one, at
// any of its places. Where nothing looks like one, nothing is written.
Task<void> invalidate_header(const World& world, HeaderWindow window);

}  // namespace ringdisk::luks
