// SPDX-License-Identifier: Apache-2.0
// Inflater: decompresses one block of known size from raw deflate (RFC 1951, no zlib header). The
// source may have bytes behind the end of the stream (qcow2 knows compressed lengths only in
// sectors), and decompression ends when the target is full, whatever follows. libdeflate does the
// work; zlib takes the rare streams it will not (those longer than the target), because libdeflate
// cannot stop in the middle. Owned by one queue, on one shard. Memory: about 12 KiB, and 40 KiB for
// the length of a call that falls back to zlib.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/result.h"

struct libdeflate_decompressor;

namespace ringdisk {

class Inflater {
 public:
  Inflater();
  ~Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Fills the whole of `target` from the stream at the start of `source`. kCorrupt: the stream is
  // damaged, or ends before the target is full; the target's bytes are then undefined.
  Result<void> decompress(Bytes source, MutableBytes target);

 private:
  struct Free {
    void operator()(libdeflate_decompressor* decompressor) const;
  };
  std::unique_ptr<libdeflate_decompressor, Free> decompressor_;
};

}  // namespace ringdisk
