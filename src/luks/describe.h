// SPDX-License-Identifier: Apache-2.0
// What `info` shows of a header: for LUKS1 qemu-img's fields, for LUKS2 the same and what it has
// besides.
#pragma once

#include <vector>

#include "block/format_admin.h"
#include "luks/header.h"

namespace ringdisk::luks {

// Where the payload begins behind the header, and of which size it is if it does not go to the end;
// what of it this program would not open is described all the same.
struct DescribedVolume {
  std::vector<DescribedField> fields;
  ByteCount payload_offset;  // 0: this is a detached header, and the payload in another file
  std::optional<ByteCount> payload_size;
};

Task<DescribedVolume> describe_volume(const World& world, HeaderWindow window);

}  // namespace ringdisk::luks
