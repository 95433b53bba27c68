// SPDX-License-Identifier: Apache-2.0
// ZstdDecoder: decompresses one block of known size from a Zstandard stream (RFC 8878). As with
// Inflater, bytes behind the end are ignored and decoding ends when the target is full. A frame
// that asks for a window of more than 8 MiB is refused: a block here is at most 2 MiB, so an honest
// encoder has no use for one, and memory is bounded whatever a frame says. Owned by one queue, on
// one shard. Memory: about 100 KiB, up to 8 MiB more once a frame has asked for it.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/result.h"

// why: libzstd's own name for its context; it is declared here so that its header stays out of ours
struct ZSTD_DCtx_s;

namespace ringdisk {

class ZstdDecoder {
 public:
  static constexpr int kWindowBitsMax = 23;

  ZstdDecoder();
  ~ZstdDecoder();
  ZstdDecoder(const ZstdDecoder&) = delete;
  ZstdDecoder& operator=(const ZstdDecoder&) = delete;

  // Fills the whole of `target` from the frames at the start of `source`. kCorrupt: damaged, ends
  // early, or a window beyond the limit; the target's bytes are then undefined.
  Result<void> decompress(Bytes source, MutableBytes target);

 private:
  struct Free {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_DCtx_s, Free> context_;
};

}  // namespace ringdisk
