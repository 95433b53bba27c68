// SPDX-License-Identifier: Apache-2.0
// The format "luks": an encrypted disk of either version, opened with a passphrase. The view of its
// payload (luks/view.h) is a storage like any other, so where guest bytes are in it is another
// format's affair: raw's, which the app hands in.
//
//   file ─> LuksView ─> raw        driver=luks,key-secret=sec0,file.filename=disk.luks
//   header ─┘                      …,header.filename=disk.hdr,file.filename=disk.payload
//
// Options: key-secret=ID (block/secret_source.h has what is without), header.* the storage of a
// detached header, allow-discards=on lets trims pass to the file; what the header may ask for
// (kdf-memory-max= and its like, luks/kdf_limits.h), where it is to be other than in `settings`.
#pragma once

#include "block/graph.h"
#include "luks/volume_settings.h"

namespace ringdisk {

FormatDriver luks_driver(FormatDriver raw, luks::VolumeSettings settings);

}  // namespace ringdisk
