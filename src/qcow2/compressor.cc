// SPDX-License-Identifier: Apache-2.0
// Levels, and the encoder of one queue.
#include "qcow2/compressor.h"

#include <string>

#include "base/diagnostics.h"
#include "codec/noise.h"

namespace ringdisk::qcow2 {

Result<void> check_compression_level(Compression compression, uint64_t level,
                                     Diagnostics& diagnostics) {
  const bool is_zstd = compression == Compression::kZstd;
  const uint32_t most = is_zstd ? ZstdEncoder::kLevelMax : Deflater::kLevelMax;
  if (level <= most) return {};
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "compress"),
                             std::string("compression_level of ") + (is_zstd ? "zstd" : "zlib") +
                                 " is 1 to " + std::to_string(most) + ", not " +
                                 std::to_string(level));
}

Result<size_t> Compressor::compress(Bytes source, MutableBytes target, uint32_t level) {
  if (compression_ == Compression::kZstd) {
    if (level == 0) level = kZstdLevelDefault;
    if (!zstd_ || zstd_->level() != level) zstd_ = std::make_unique<ZstdEncoder>(level);
    return zstd_->compress(source, target);
  }
  if (is_noise(source)) return size_t{0};
  if (level == 0) level = kDeflateLevelDefault;
  if (!deflater_ || deflater_->level() != level) deflater_ = std::make_unique<Deflater>(level);
  return deflater_->compress(source, target);
}

}  // namespace ringdisk::qcow2
