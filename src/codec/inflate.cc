// SPDX-License-Identifier: Apache-2.0
// libdeflate first, zlib where the stream goes on behind the target's end. Neither allocates by a
// number from the stream.
#include "codec/inflate.h"

#include <libdeflate.h>
#include <zlib.h>

#include <limits>

namespace ringdisk {
namespace {

Error damaged() { return Error::of(ErrorKind::kCorrupt, "inflate"); }

// zlib's way: stops when the target is full, wherever the stream is then.
Result<void> inflate_until_full(Bytes source, MutableBytes target) {
  z_stream stream{};
  // Raw deflate: a negative window size; 15 is the largest, which reads every stream.
  if (inflateInit2(&stream, -15) != Z_OK) return Error::from_errno(ENOMEM, "inflate");
  // why: zlib's interface takes its own byte type, not const
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(source.data()));
  stream.avail_in = static_cast<uInt>(source.size());
  // why: zlib's interface takes its own byte type
  stream.next_out = reinterpret_cast<Bytef*>(target.data());
  stream.avail_out = static_cast<uInt>(target.size());
  int status = inflate(&stream, Z_FINISH);
  bool is_full = stream.avail_out == 0;
  inflateEnd(&stream);
  // Z_BUF_ERROR: no room for more, which is what "full" means.
  if (is_full && (status == Z_STREAM_END || status == Z_BUF_ERROR || status == Z_OK)) return {};
  return damaged();
}

}  // namespace

void Inflater::Free::operator()(libdeflate_decompressor* decompressor) const {
  libdeflate_free_decompressor(decompressor);
}

Inflater::Inflater() : decompressor_(libdeflate_alloc_decompressor()) {}
Inflater::~Inflater() = default;

Result<void> Inflater::decompress(Bytes source, MutableBytes target) {
  constexpr size_t kMax = std::numeric_limits<uInt>::max();
  if (source.empty() || source.size() > kMax || target.size() > kMax) return damaged();
  if (!decompressor_) return inflate_until_full(source, target);
  size_t produced = 0, consumed = 0;
  libdeflate_result result =
      libdeflate_deflate_decompress_ex(decompressor_.get(), source.data(), source.size(),
                                       target.data(), target.size(), &consumed, &produced);
  if (result == LIBDEFLATE_SUCCESS) {
    if (produced == target.size()) return {};
    return damaged();
  }
  return inflate_until_full(source, target);
}

}  // namespace ringdisk
