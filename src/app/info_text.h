// SPDX-License-Identifier: Apache-2.0
// What `info` prints about one image, as text and as JSON, in qemu-img's wording and order (its
// objects come in the order of a hash table; scripts that compare text rely on it). Pure.
#pragma once

#include <optional>
#include <string>

#include "app/json_text.h"
#include "block/format_admin.h"

namespace ringdisk {

struct ImageReport {
  std::string filename;
  std::string format;
  ImageDescription description;
  std::optional<ByteCount> disk_size;  // what it really takes
  std::string full_backing_name;       // seen from here; empty: no backing image
};

std::string info_as_text(const ImageReport& report);
// The table of internal snapshots with its headline; empty where there is none.
std::string snapshots_as_text(const std::vector<SnapshotDescription>& snapshots);
void info_as_json(const ImageReport& report, JsonText& json);

}  // namespace ringdisk
