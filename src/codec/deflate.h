// SPDX-License-Identifier: Apache-2.0
// Deflater: compresses one block into raw deflate (RFC 1951, no zlib header), in one call of
// libdeflate. What it writes may refer back over 32 KiB, the most that the format allows; whoever
// inflates the block in one piece needs no window for that. Owned by one queue, on one shard, and
// kept for the next block: making one allocates, compressing does not. Memory: 0.3 to 1.3 MiB up to
// level 9, about 9 MiB from level 10 on.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/result.h"

struct libdeflate_compressor;

namespace ringdisk {

class Deflater {
 public:
  static constexpr uint32_t kLevelMin = 1;   // fastest
  static constexpr uint32_t kLevelMax = 12;  // smallest

  explicit Deflater(uint32_t level);
  ~Deflater();
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  uint32_t level() const { return level_; }

  // Compresses all of `source` to the start of `target`; gives the length of the stream, or 0 where
  // it does not fit (the target's bytes are then undefined). An error: no memory.
  Result<size_t> compress(Bytes source, MutableBytes target);

 private:
  struct Free {
    void operator()(libdeflate_compressor* compressor) const;
  };
  const uint32_t level_;
  std::unique_ptr<libdeflate_compressor, Free> compressor_;
};

}  // namespace ringdisk
