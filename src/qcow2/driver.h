// SPDX-License-Identifier: Apache-2.0
// The qcow2 format as main() lists it among the drivers. Options of driver=qcow2:
//   l2-cache-size=SIZE   memory for L2 slices at the most (256 MiB)
//   snapshot=NAME        not the disk but an internal snapshot of it, by id or name, or
//                        snapshot.id=ID,snapshot.name=NAME; read-only
#pragma once

#include "block/graph.h"

namespace ringdisk {

FormatDriver qcow2_driver();

}  // namespace ringdisk
