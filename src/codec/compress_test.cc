// SPDX-License-Identifier: Apache-2.0
// Both encoders: what they make comes back through our decoders and the reference ones, at every
// level, and what does not fit says so without touching a byte behind the target.
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/random.h"
#include "codec/deflate.h"
#include "codec/inflate.h"
#include "codec/zstd.h"
#include "codec/zstd_encoder.h"
#include "sim/seeds.h"

namespace ringdisk {
namespace {

using Block = std::vector<std::byte>;

Block random_block(size_t size, uint64_t seed) {
  Random random(seed);
  Block block(size);
  for (std::byte& byte : block) byte = static_cast<std::byte>(random.next());
  return block;
}

// Words of a small vocabulary, drawn.
Block text_block(size_t size, uint64_t seed) {
  Random random(seed);
  Block block;
  while (block.size() < size) {
    const std::string word = "word" + std::to_string(random.below(400)) + " ";
    for (char letter : word) block.push_back(static_cast<std::byte>(letter));
  }
  block.resize(size);
  return block;
}

// The same random bytes again and again, `distance` apart: nothing is found at shorter distances.
Block repeated_block(size_t size, size_t distance, uint64_t seed) {
  Block block = random_block(size, seed);
  for (size_t i = distance; i < size; ++i) block[i] = block[i - distance];
  return block;
}

std::vector<Block> blocks_of(size_t size, uint64_t seed) {
  return {Block(size), text_block(size, seed), random_block(size, seed),
          repeated_block(size, 30000, seed)};
}

template <class Encoder, class Decoder>
void expect_blocks_come_back(uint32_t level, size_t size) {
  Encoder encoder(level);
  Decoder decoder;
  for (const Block& block : blocks_of(size, sim::seed_or(level))) {
    Block stream(size * 2 + 1024), again(size);
    Result<size_t> length = encoder.compress(block, stream);
    ASSERT_TRUE(length.ok());
    ASSERT_NE(length.value(), 0u);
    ASSERT_TRUE(decoder.decompress(Bytes(stream).first(length.value()), again).ok());
    ASSERT_EQ(again, block) << "level " << level << ", " << size << " bytes";
  }
}

// Whatever the length of the target: the whole stream, the same each time, or nothing. An encoder
// may want a few bytes more than it fills.
template <class Encoder>
void expect_bounded(const Block& block) {
  constexpr size_t kGuard = 64, kSpare = 16;
  Encoder encoder(3);
  Block whole(block.size() * 2 + 1024);
  const size_t wanted = encoder.compress(block, whole).value();
  for (size_t room : {size_t{0}, size_t{1}, wanted / 2, wanted - 1, wanted, wanted + kSpare}) {
    Block target(room + kGuard, std::byte{0x5a});
    Result<size_t> length = encoder.compress(block, MutableBytes(target).first(room));
    ASSERT_TRUE(length.ok()) << room;
    const bool must_fit = room >= wanted + kSpare, may_fit = room >= wanted;
    EXPECT_TRUE((length.value() == wanted && may_fit) || (length.value() == 0 && !must_fit))
        << length.value() << " of " << wanted << " in " << room;
    auto is_untouched = [](std::byte byte) { return byte == std::byte{0x5a}; };
    EXPECT_TRUE(std::all_of(target.end() - kGuard, target.end(), is_untouched)) << room;
  }
}

// As QEMU inflates: raw, a window of 4 KiB, all of it in one call.
bool inflates_in_one_piece_with_a_small_window(Bytes stream, MutableBytes target) {
  z_stream state{};
  if (inflateInit2(&state, -12) != Z_OK) return false;
  // why: zlib's interface takes its own byte type, not const
  state.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(stream.data()));
  state.avail_in = static_cast<uInt>(stream.size());
  // why: zlib's interface takes its own byte type
  state.next_out = reinterpret_cast<Bytef*>(target.data());
  state.avail_out = static_cast<uInt>(target.size());
  const int status = inflate(&state, Z_FINISH);
  const bool is_full = state.avail_out == 0;
  inflateEnd(&state);
  return is_full && (status == Z_STREAM_END || status == Z_BUF_ERROR);
}

TEST(DeflaterTest, BlocksComeBackFromEveryLevel) {
  for (uint32_t level = Deflater::kLevelMin; level <= Deflater::kLevelMax; ++level) {
    for (size_t size : {size_t{512}, size_t{4096}, size_t{65536}}) {
      expect_blocks_come_back<Deflater, Inflater>(level, size);
    }
  }
  expect_blocks_come_back<Deflater, Inflater>(6, size_t{1} << 21);
}

TEST(DeflaterTest, WhatDoesNotFitSaysSoAndStaysInside) {
  expect_bounded<Deflater>(text_block(65536, 1));
  expect_bounded<Deflater>(random_block(65536, 2));
  expect_bounded<Deflater>(Block(4096));
}

TEST(DeflaterTest, DistancesBeyondASmallWindowAreReadInOnePiece) {
  for (size_t size : {size_t{65536}, size_t{1} << 21}) {
    const Block block = repeated_block(size, 30000, 3);
    Deflater deflater(6);
    Block stream(size), again(size);
    const size_t length = deflater.compress(block, stream).value();
    ASSERT_NE(length, 0u) << "only distances of 30000 bytes make this block smaller";
    ASSERT_TRUE(inflates_in_one_piece_with_a_small_window(Bytes(stream).first(length), again));
    EXPECT_EQ(again, block);
  }
}

TEST(ZstdEncoderTest, BlocksComeBackFromEveryLevel) {
  for (uint32_t level = ZstdEncoder::kLevelMin; level <= ZstdEncoder::kLevelMax; ++level) {
    for (size_t size : {size_t{512}, size_t{4096}, size_t{65536}}) {
      expect_blocks_come_back<ZstdEncoder, ZstdDecoder>(level, size);
    }
  }
  expect_blocks_come_back<ZstdEncoder, ZstdDecoder>(3, size_t{1} << 21);
}

TEST(ZstdEncoderTest, WhatDoesNotFitSaysSoAndStaysInside) {
  expect_bounded<ZstdEncoder>(text_block(65536, 1));
  expect_bounded<ZstdEncoder>(random_block(65536, 2));
  expect_bounded<ZstdEncoder>(Block(4096));
}

TEST(ZstdEncoderTest, TheReferenceDecoderReadsTheWholeFrame) {
  const Block block = text_block(65536, 9);
  ZstdEncoder encoder(3);
  Block stream(block.size()), again(block.size());
  const size_t length = encoder.compress(block, stream).value();
  ASSERT_EQ(ZSTD_decompress(again.data(), again.size(), stream.data(), length), block.size());
  EXPECT_EQ(again, block);
}

TEST(EncoderDeathTest, LevelsThatDoNotExist) {
  EXPECT_DEATH(Deflater(0), "CHECK failed");
  EXPECT_DEATH(Deflater(13), "CHECK failed");
  EXPECT_DEATH(ZstdEncoder(0), "CHECK failed");
  EXPECT_DEATH(ZstdEncoder(23), "CHECK failed");
}

}  // namespace
}  // namespace ringdisk
