// SPDX-License-Identifier: Apache-2.0
// QEMU's other way to describe an image: json:{"driver": "qcow2", "file": {"filename": "x"}}, on
// command lines alone. Images that name other images this way are refused (block/open_gate.h).
#pragma once

#include <string_view>

#include "block/options.h"

namespace ringdisk {

inline constexpr std::string_view kJsonPrefix = "json:";

// The description behind the prefix as options: {"file": {"a": 1}} is file.a=1, lists are counted
// (x.0, x.1), true and false are on and off. kInvalid, with a note: no JSON, no object, deeper than
// 16, or a null but for "backing", where it is backing= (none).
Result<Options> parse_json_description(std::string_view json, Diagnostics& diagnostics);

}  // namespace ringdisk
