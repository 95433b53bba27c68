// SPDX-License-Identifier: Apache-2.0
// The format "luks": an encrypted disk of either version, opened with a passphrase. The view of its
// payload (luks/view.h) is a storage like any other, so where guest bytes are in it is another
// format's affair: raw's, which the app hands in.
//
//   file ─> LuksView ─> raw        driver=luks,key-secret=sec0,file.filename=disk.luks
//   header ─┘                      …,header.filename=disk.hdr,file.filename=disk.payload
//
// Options: key-secret=ID (block/secret_source.h has what is without), header.* the storage of a
// detached header, allow-discards=on lets trims pass to the file.
#pragma once

#include "block/graph.h"
#include "crypto/cpu_features.h"

namespace ringdisk {

FormatDriver luks_driver(FormatDriver raw, CpuFeatures features);

}  // namespace ringdisk
