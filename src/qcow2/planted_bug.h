// SPDX-License-Identifier: Apache-2.0
// PlantedBug: deliberate mistakes in what keeps an image right when the power fails or a disk does.
// The sweeps must find every one of them (planted_bug_test.cc), else they are worth nothing. Set by
// tests alone.
#pragma once

#include <cstdint>

namespace ringdisk::qcow2 {

enum class PlantedBug : uint8_t {
  kNone,
  // L2 and L1 entries are written without a flush behind what they point at.
  kEntriesBeforeTheirClusters,
  // The header points at a moved refcount table that is not known to be durable.
  kHeaderBeforeRefcountTable,
  // A cluster may be freed and given out before the removal of its pointer is durable.
  kFreedBeforeRemovalIsDurable,
  // A metadata write that fails counts as written.
  kLostWriteError,
  // Lazy refcounts go stale on the disk without the dirty bit.
  kLateDirtyBit,
  // Entries are written without a flush of the data file that they point into.
  kDataFileNotFlushed,
  // The disk changes before it is durable that the bitmaps are in use.
  kBitmapsInUseTooLate,
};

}  // namespace ringdisk::qcow2
