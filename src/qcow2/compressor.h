// SPDX-License-Identifier: Apache-2.0
// Compressor: one queue's encoder for the compression type of its image. Made when first needed and
// kept, so that compressing a cluster allocates nothing; a request for another level makes it anew.
// Lives on its queue's shard.
#pragma once

#include <memory>

#include "codec/deflate.h"
#include "codec/zstd_encoder.h"
#include "qcow2/layout/header.h"

namespace ringdisk::qcow2 {

// Decision 0007 has the measurements: images are no larger than QEMU's at these.
inline constexpr uint32_t kDeflateLevelDefault = 5;
inline constexpr uint32_t kZstdLevelDefault = 4;

// kInvalid, with a note that names the range, unless `level` is 0 (the default) or one of this
// type.
Result<void> check_compression_level(Compression compression, uint64_t level,
                                     Diagnostics& diagnostics);

class Compressor {
 public:
  explicit Compressor(Compression compression) : compression_(compression) {}

  // As Deflater and ZstdEncoder have it; 0 also where trying would be in vain. `level` has passed
  // check_compression_level.
  Result<size_t> compress(Bytes source, MutableBytes target, uint32_t level);

 private:
  const Compression compression_;
  std::unique_ptr<Deflater> deflater_;
  std::unique_ptr<ZstdEncoder> zstd_;
};

}  // namespace ringdisk::qcow2
