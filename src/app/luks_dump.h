// SPDX-License-Identifier: Apache-2.0
// What `ringdisk luks dump` prints of a header: as cryptsetup's luksDump lays it out, without salts
// and digests, and as JSON. Pure.
#pragma once

#include <string>

#include "luks/header.h"

namespace ringdisk {

std::string luks_as_text(const luks::LuksHeader& header, const std::string& name);
std::string luks_as_json(const luks::LuksHeader& header, const std::string& name);

}  // namespace ringdisk
