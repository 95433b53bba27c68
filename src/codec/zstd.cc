// SPDX-License-Identifier: Apache-2.0
// The streaming interface, since only it stops when the target is full.
#include "codec/zstd.h"

#include <zstd.h>

namespace ringdisk {
namespace {

Error damaged() { return Error::of(ErrorKind::kCorrupt, "zstd"); }

}  // namespace

void ZstdDecoder::Free::operator()(ZSTD_DCtx_s* context) const { ZSTD_freeDCtx(context); }

ZstdDecoder::ZstdDecoder() : context_(ZSTD_createDCtx()) {
  if (context_) ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kWindowBitsMax);
}
ZstdDecoder::~ZstdDecoder() = default;

Result<void> ZstdDecoder::decompress(Bytes source, MutableBytes target) {
  if (!context_) return Error::from_errno(ENOMEM, "zstd");
  ZSTD_DCtx_reset(context_.get(), ZSTD_reset_session_only);
  ZSTD_inBuffer input{source.data(), source.size(), 0};
  ZSTD_outBuffer output{target.data(), target.size(), 0};
  while (output.pos < output.size) {
    size_t consumed = input.pos, produced = output.pos;
    size_t status = ZSTD_decompressStream(context_.get(), &output, &input);
    if (ZSTD_isError(status)) return damaged();
    // Each turn moves forward or the stream has ended early.
    if (input.pos == consumed && output.pos == produced) return damaged();
  }
  return {};
}

}  // namespace ringdisk
