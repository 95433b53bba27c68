// SPDX-License-Identifier: Apache-2.0
// The one list of concrete drivers: storages, filters, formats, and what creates and checks
// formats.
#pragma once

#include <memory>
#include <vector>

#include "block/format_admin.h"
#include "block/graph.h"

namespace ringdisk {

Drivers make_drivers();
std::vector<std::unique_ptr<FormatAdmin>> make_format_admins();

}  // namespace ringdisk
