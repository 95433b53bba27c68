// SPDX-License-Identifier: Apache-2.0
// Reading the persistent bitmaps of an image: the directory and the tables it names. Any shard.
// Memory is bounded by the file's size and the bounds of bitmap_directory.h.
#pragma once

#include <optional>

#include "block/dirty_bits.h"
#include "block/storage_access.h"
#include "qcow2/layout/bitmap_directory.h"
#include "qcow2/layout/header.h"

namespace ringdisk {
class Diagnostics;
}

namespace ringdisk::qcow2 {

struct BitmapDirectory {
  BitmapsExtension place;
  std::vector<BitmapEntry> entries;

  std::optional<size_t> find(std::string_view name) const;
};

// Whether the header promises that its bitmaps are right. Without the autoclear bit a program that
// knows no bitmaps has written to the image since.
bool has_valid_bitmaps(const Header& header);

// Empty where the image has none that are valid. kCorrupt, with a note, where the extension or the
// directory is damaged. Entries are not judged yet (fault_of_bitmap).
Task<BitmapDirectory> read_bitmap_directory(StorageAccess& storage, const Header& header,
                                            Diagnostics& diagnostics);

// As many entries of the table, from entry `first` on. kCorrupt where they lie beyond the end of
// the file.
Task<std::vector<uint64_t>> read_bitmap_table(StorageAccess& storage, const BitmapEntry& entry,
                                              uint64_t first, uint64_t count);

// The bits of an entry without fault, which is not in use, for a disk of `size`.
Task<std::shared_ptr<DirtyBits>> read_bitmap_bits(StorageAccess& storage, const BitmapEntry& entry,
                                                  ByteCount size, const Geometry& geometry);

// For a user who asked for the bitmap called `name`. kNotFound, kInvalid (inconsistent) and
// kUnsupported, each with a note that says what to do.
Result<size_t> choose_bitmap(const BitmapDirectory& directory, std::string_view name,
                             const Header& header, Diagnostics& diagnostics, uint32_t node);
// kCorrupt, with a note, where an entry has a fault.
Result<void> judge_bitmap(const BitmapEntry& entry, const Header& header, Diagnostics& diagnostics,
                          uint32_t node);
// Whether all can follow their disk from `size` to `new_size`. kUnsupported, or kInvalid for one
// that is in use, with a note.
Result<void> check_bitmap_sizes(const BitmapDirectory& directory, ByteCount size,
                                ByteCount new_size, Diagnostics& diagnostics, uint32_t node);
std::vector<BitmapDescription> describe_bitmaps(const BitmapDirectory& directory, ByteCount size);

}  // namespace ringdisk::qcow2
