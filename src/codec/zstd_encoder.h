// SPDX-License-Identifier: Apache-2.0
// ZstdEncoder: compresses one block into one Zstandard frame (RFC 8878) that names its size, so
// that its window is no larger than the block. Owned by one queue, on one shard, and kept for the
// next block: its tables are made with the first one and used again. Memory: what the level's
// tables take for blocks of this size, 1 to 3 MiB up to level 9, up to about 40 MiB at the last
// levels for blocks of 2 MiB.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/result.h"

// why: libzstd's own name for its context; it is declared here so that its header stays out of ours
struct ZSTD_CCtx_s;

namespace ringdisk {

class ZstdEncoder {
 public:
  static constexpr uint32_t kLevelMin = 1;   // fastest
  static constexpr uint32_t kLevelMax = 22;  // smallest

  explicit ZstdEncoder(uint32_t level);
  ~ZstdEncoder();
  ZstdEncoder(const ZstdEncoder&) = delete;
  ZstdEncoder& operator=(const ZstdEncoder&) = delete;

  uint32_t level() const { return level_; }

  // Compresses all of `source` to the start of `target`; gives the length of the frame, or 0 where
  // it does not fit (the target's bytes are then undefined). An error: no memory.
  Result<size_t> compress(Bytes source, MutableBytes target);

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  const uint32_t level_;
  std::unique_ptr<ZSTD_CCtx_s, Free> context_;
};

}  // namespace ringdisk
