// SPDX-License-Identifier: Apache-2.0
// A header with its key slots copied away, and back: byte for byte, as cryptsetup's
// luksHeaderBackup and luksHeaderRestore do it. Whoever has a backup and a passphrase of its time
// can read the disk, whatever has been changed since.
#pragma once

#include "luks/header.h"

namespace ringdisk::luks {

// Bytes that the header takes, with all key slots.
ByteCount header_extent(const LuksHeader& header);

// Copies the header in `source` to the front of `target`, durably. Errors are those of
// read_header().
Task<void> backup_header(const World& world, HeaderWindow source, HeaderWindow target);

// Copies the header in `backup` to `target`, durably. kDenied, and nothing is changed, where the
// header that is in `target` is of another volume, or none is there, or the backup has
// requirements, and not `force`: with another key the data there would be lost. kNoSpace, likewise,
// where `target` is too small; kCorrupt where the backup was cut short. After a crash there is no
// header in `target` or the new one.
Task<void> restore_header(const World& world, HeaderWindow backup, HeaderWindow target, bool force);

}  // namespace ringdisk::luks
