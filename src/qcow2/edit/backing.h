// SPDX-License-Identifier: Apache-2.0
// What an image records of its backing image, changed. One rewrite of the header: before it the
// disk reads through the old one, after it through the new one.
#pragma once

#include "block/format_admin.h"

namespace ringdisk::qcow2 {

// FormatAdmin::change_backing.
Task<void> change_backing(FormatNode& node, std::string name, std::string format);

}  // namespace ringdisk::qcow2
