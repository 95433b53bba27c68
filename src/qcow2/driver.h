// SPDX-License-Identifier: Apache-2.0
// The qcow2 format as main() lists it among the drivers. Options of driver=qcow2:
//   l2-cache-size=SIZE   memory for L2 slices at the most (256 MiB)
//   snapshot=NAME        not the disk but an internal snapshot of it, by id or name, or
//                        snapshot.id=ID,snapshot.name=NAME; read-only
//   encrypt.key-secret=ID  the passphrase of an encrypted image (block/secret_source.h)
#pragma once

#include "block/graph.h"

namespace ringdisk {

class DataEncryption;

// `encryption`, which outlives the driver, opens encrypted images; null: they are refused, but for
// their metadata.
FormatDriver qcow2_driver(const DataEncryption* encryption = nullptr);

}  // namespace ringdisk
