// SPDX-License-Identifier: Apache-2.0
// One call of libdeflate, which never writes beyond the target and says when it would have to.
#include "codec/deflate.h"

#include <libdeflate.h>

#include <cerrno>

#include "base/check.h"

namespace ringdisk {

void Deflater::Free::operator()(libdeflate_compressor* compressor) const {
  libdeflate_free_compressor(compressor);
}

Deflater::Deflater(uint32_t level)
    : level_(level), compressor_(libdeflate_alloc_compressor(static_cast<int>(level))) {
  CHECK_GE(level, kLevelMin);
  CHECK_LE(level, kLevelMax);
}
Deflater::~Deflater() = default;

Result<size_t> Deflater::compress(Bytes source, MutableBytes target) {
  if (!compressor_) return Error::from_errno(ENOMEM, "deflate");
  return libdeflate_deflate_compress(compressor_.get(), source.data(), source.size(), target.data(),
                                     target.size());
}

}  // namespace ringdisk
