// SPDX-License-Identifier: Apache-2.0
// The reply to a request as a list of parts: headers, written into the request's own memory, and
// payload where it lies. Pure but for the request it fills in.
#pragma once

#include "nbd/request.h"

namespace ringdisk::nbd {

// Fills in parts, part_count and reply_bytes from the header and the outcome.
void compose_reply(Request& request);

}  // namespace ringdisk::nbd
