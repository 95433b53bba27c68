// SPDX-License-Identifier: Apache-2.0
// One frame a block. Every call begins a session of its own, so that one that did not fit leaves
// nothing behind.
#include "codec/zstd_encoder.h"

#include <zstd.h>
#include <zstd_errors.h>

#include <cerrno>

#include "base/check.h"

namespace ringdisk {

void ZstdEncoder::Free::operator()(ZSTD_CCtx_s* context) const { ZSTD_freeCCtx(context); }

ZstdEncoder::ZstdEncoder(uint32_t level) : level_(level), context_(ZSTD_createCCtx()) {
  CHECK_GE(level, kLevelMin);
  CHECK_LE(level, kLevelMax);
  if (context_) {
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, static_cast<int>(level));
  }
}
ZstdEncoder::~ZstdEncoder() = default;

Result<size_t> ZstdEncoder::compress(Bytes source, MutableBytes target) {
  if (!context_) return Error::from_errno(ENOMEM, "zstd");
  const size_t length =
      ZSTD_compress2(context_.get(), target.data(), target.size(), source.data(), source.size());
  if (!ZSTD_isError(length)) return length;
  if (ZSTD_getErrorCode(length) == ZSTD_error_dstSize_tooSmall) return size_t{0};
  return Error::from_errno(ENOMEM, "zstd");
}

}  // namespace ringdisk
