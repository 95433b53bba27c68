// SPDX-License-Identifier: Apache-2.0
// Both decoders against the reference encoders, and what hostile streams get.
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <vector>

#include "base/random.h"
#include "codec/inflate.h"
#include "codec/zstd.h"

namespace ringdisk {
namespace {

std::vector<std::byte> compressible_bytes(size_t size, uint64_t seed) {
  Random random(seed);
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bool repeats = i >= 64 && random.chance(90);
    bytes[i] = repeats ? bytes[i - 64] : static_cast<std::byte>(random.next());
  }
  return bytes;
}

std::vector<std::byte> deflated(Bytes source) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
  std::vector<std::byte> target(deflateBound(&stream, source.size()));
  // why: zlib's interface takes its own byte type, not const
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(source.data()));
  stream.avail_in = static_cast<uInt>(source.size());
  // why: zlib's interface takes its own byte type
  stream.next_out = reinterpret_cast<Bytef*>(target.data());
  stream.avail_out = static_cast<uInt>(target.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  target.resize(target.size() - stream.avail_out);
  deflateEnd(&stream);
  return target;
}

std::vector<std::byte> zstd_compressed(Bytes source) {
  std::vector<std::byte> target(ZSTD_compressBound(source.size()));
  size_t size = ZSTD_compress(target.data(), target.size(), source.data(), source.size(), 3);
  EXPECT_FALSE(ZSTD_isError(size));
  target.resize(size);
  return target;
}

void append_junk(std::vector<std::byte>& stream, size_t count) {
  Random random(count);
  for (size_t i = 0; i < count; ++i) stream.push_back(static_cast<std::byte>(random.next()));
}

template <class Decoder>
void expect_blocks_come_back(std::vector<std::byte> (*compress)(Bytes)) {
  Decoder decoder;
  for (size_t size : {size_t{512}, size_t{4096}, size_t{65536}, size_t{1} << 21}) {
    std::vector<std::byte> block = compressible_bytes(size, size);
    std::vector<std::byte> stream = compress(block);
    append_junk(stream, 300);  // the rest of the last sector
    std::vector<std::byte> target(size);
    ASSERT_TRUE(decoder.decompress(stream, target).ok()) << size;
    EXPECT_EQ(target, block) << size;
  }
}

template <class Decoder>
void expect_stops_when_full(std::vector<std::byte> (*compress)(Bytes)) {
  std::vector<std::byte> block = compressible_bytes(65536, 3);
  std::vector<std::byte> stream = compress(block);
  std::vector<std::byte> target(4096);
  Decoder decoder;
  ASSERT_TRUE(decoder.decompress(stream, target).ok());
  EXPECT_TRUE(std::equal(target.begin(), target.end(), block.begin()));
}

template <class Decoder>
void expect_early_end_is_corrupt(std::vector<std::byte> (*compress)(Bytes)) {
  std::vector<std::byte> block = compressible_bytes(4096, 5);
  std::vector<std::byte> stream = compress(block);
  std::vector<std::byte> target(8192);
  Decoder decoder;
  Result<void> longer = decoder.decompress(stream, target);
  ASSERT_FALSE(longer.ok());
  EXPECT_EQ(longer.error().kind, ErrorKind::kCorrupt);
  target.resize(4096);
  Result<void> cut = decoder.decompress(Bytes(stream).first(stream.size() / 2), target);
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().kind, ErrorKind::kCorrupt);
  EXPECT_FALSE(decoder.decompress(Bytes(), target).ok());
  // A failure leaves the decoder fit for the next block.
  ASSERT_TRUE(decoder.decompress(stream, target).ok());
  EXPECT_EQ(target, block);
}

TEST(Inflater, GivesBlocksBackWithJunkBehindThem) { expect_blocks_come_back<Inflater>(deflated); }
TEST(Inflater, StopsWhenTheTargetIsFull) { expect_stops_when_full<Inflater>(deflated); }
TEST(Inflater, CallsAnEarlyEndCorrupt) { expect_early_end_is_corrupt<Inflater>(deflated); }
TEST(ZstdDecoder, GivesBlocksBackWithJunkBehindThem) {
  expect_blocks_come_back<ZstdDecoder>(zstd_compressed);
}
TEST(ZstdDecoder, StopsWhenTheTargetIsFull) {
  expect_stops_when_full<ZstdDecoder>(zstd_compressed);
}
TEST(ZstdDecoder, CallsAnEarlyEndCorrupt) {
  expect_early_end_is_corrupt<ZstdDecoder>(zstd_compressed);
}

TEST(ZstdDecoder, RefusesAWindowBeyondItsLimit) {
  std::vector<std::byte> block = compressible_bytes(65536, 7);
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, ZstdDecoder::kWindowBitsMax + 1);
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  std::vector<std::byte> stream(ZSTD_compressBound(block.size()));
  ZSTD_inBuffer input{block.data(), block.size(), 0};
  ZSTD_outBuffer output{stream.data(), stream.size(), 0};
  // Two steps, so that the encoder cannot shrink the window to the content's size.
  ZSTD_compressStream2(context, &output, &input, ZSTD_e_flush);
  ASSERT_EQ(ZSTD_compressStream2(context, &output, &input, ZSTD_e_end), size_t{0});
  ZSTD_freeCCtx(context);
  stream.resize(output.pos);
  std::vector<std::byte> target(block.size());
  ZstdDecoder decoder;
  EXPECT_FALSE(decoder.decompress(stream, target).ok());
}

}  // namespace
}  // namespace ringdisk
