// SPDX-License-Identifier: Apache-2.0
// HeaderWindow: the stretch of a storage in which a header lies: a whole file (a LUKS image, a
// detached header) or a part of one (a qcow2 image's). All I/O of headers goes through it, offsets
// counting from the header's start. A small value; its storage outlives it. This shard only.
#pragma once

#include <optional>

#include "block/storage_access.h"
#include "luks/refusal.h"
#include "runtime/world.h"

namespace ringdisk::luks {

class HeaderWindow {
 public:
  // The whole storage, which grows with what is written where it can.
  explicit HeaderWindow(StorageAccess& storage) : storage_(&storage) {}
  // [start, start + length) alone.
  HeaderWindow(StorageAccess& storage, HostOffset start, ByteCount length)
      : storage_(&storage), start_(start), length_(length) {}

  // Bytes that are there now.
  ByteCount size() const;
  // kCorrupt where the window ends before `target` is full.
  Task<void> read(const World& world, HostOffset at, MutableBytes target) const;
  Task<void> write(const World& world, HostOffset at, Bytes source) const;
  // Zeros for sure, not space given back that still holds what it held.
  Task<void> write_zeroes(const World& world, HostRange range) const;
  Task<void> flush() const;
  // Of the storage; within the window.
  Task<StorageExtent> find_extent(HostRange range) const;

  // kNoSpace where the window, or a storage that does not grow, cannot hold the range. Each write
  // asks; who destroys something before he writes asks first.
  Result<void> admit(const World& world, HostRange range) const;

  Refusal refusal(const World& world) const {
    return Refusal(world.diagnostics, storage_->node_id());
  }
  StorageAccess& storage() const { return *storage_; }

 private:
  StorageAccess* storage_;
  HostOffset start_;
  std::optional<ByteCount> length_;
};

}  // namespace ringdisk::luks
