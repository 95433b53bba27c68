// SPDX-License-Identifier: Apache-2.0
// raw: the format whose guest offset is the host offset, plus a constant. It keeps no metadata, so
// its queues share nothing and a mapping is a sum.
//
//   driver=raw,file.filename=disk.img,offset=1M,size=4G       a part of a file as a disk
//
// Size: of a storage that can grow (or is only read) the last sector counts as whole, since disks
// come in sectors: a file of 1000 bytes is a disk of 1024, whose last 24 read as zeros. It is fixed
// when the disk is opened.
//
// A disk that nobody called raw but that looked like nothing else (option probed=on, set by the
// graph) gets a guard in front of its storage (nodes/first_sector_guard.h); others do not even have
// the check.
#pragma once

#include <memory>

#include "block/format.h"
#include "block/graph.h"
#include "block/storage_access.h"

namespace ringdisk {

class RawNode final : public FormatNode {
 public:
  // The bytes [offset, offset + size) of `storage`.
  RawNode(std::unique_ptr<SharedStorage> storage, ByteCount offset, ByteCount size);

  const char* driver() const override { return "raw"; }
  const FormatLimits& limits() const override { return limits_; }
  ByteCount size() const override { return size_; }
  Task<std::unique_ptr<FormatQueue>> open_queue(Shard& shard) override;
  Task<void> close() override;

 private:
  // constant after open
  const std::unique_ptr<SharedStorage> storage_;
  const ByteCount offset_;
  const ByteCount size_;
  const FormatLimits limits_;
};

// Options: offset, size, probed.
FormatDriver raw_driver();

}  // namespace ringdisk
