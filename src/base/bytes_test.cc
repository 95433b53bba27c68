// SPDX-License-Identifier: Apache-2.0
// Integers in memory, the bounded reader, and buffers cut from several pieces.
#include "base/bytes.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "base/endian.h"
#include "base/io_buffers.h"
#include "base/random.h"
#include "base/span_reader.h"
#include "sim/seeds.h"

namespace ringdisk {
namespace {

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

// --- endian.h ------------------------------------------------------------------------------------

TEST(EndianTest, LoadsAndStoresAtAnyAlignmentInEitherOrder) {
  const auto bytes = bytes_of({0xff, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0xff});
  const std::byte* at = bytes.data() + 1;
  EXPECT_EQ(load_be16(at), 0x0102u);
  EXPECT_EQ(load_be32(at), 0x01020304u);
  EXPECT_EQ(load_be64(at), 0x0102030405060708u);
  EXPECT_EQ(load_le16(at), 0x0201u);
  EXPECT_EQ(load_le32(at), 0x04030201u);
  EXPECT_EQ(load_le64(at), 0x0807060504030201u);
  std::array<std::byte, 10> target{};
  store_be64(target.data() + 1, 0x0102030405060708u);
  EXPECT_EQ(load_be64(target.data() + 1), 0x0102030405060708u);
  EXPECT_EQ(target[1], std::byte{1});
  store_le32(target.data() + 3, 0xa1b2c3d4u);
  EXPECT_EQ(load_le32(target.data() + 3), 0xa1b2c3d4u);
  EXPECT_EQ(target[3], std::byte{0xd4});
  EXPECT_EQ(target[2], std::byte{2});
  EXPECT_EQ(target[7], std::byte{7});
  store_be16(target.data(), 0xbeef);
  EXPECT_EQ(target[0], std::byte{0xbe});
  store_le16(target.data(), 0xbeef);
  EXPECT_EQ(target[0], std::byte{0xef});
  store_be32(target.data(), 1);
  EXPECT_EQ(target[3], std::byte{1});
  store_le64(target.data(), 1);
  EXPECT_EQ(target[0], std::byte{1});
  EXPECT_EQ(target[7], std::byte{0});
}

// --- SpanReader ----------------------------------------------------------------------------------

TEST(SpanReaderTest, ReadsFieldsFromFrontToBack) {
  const auto bytes = bytes_of({1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 9, 8, 7, 6});
  SpanReader reader(bytes);
  EXPECT_EQ(reader.u8(), 1u);
  EXPECT_EQ(reader.be16(), 2u);
  EXPECT_EQ(reader.be32(), 3u);
  EXPECT_EQ(reader.be64(), 4u);
  EXPECT_EQ(reader.position(), 15u);
  reader.skip(1);
  Bytes rest = reader.bytes(3);
  ASSERT_EQ(rest.size(), 3u);
  EXPECT_EQ(rest[0], std::byte{8});
  EXPECT_EQ(reader.left(), 0u);
  EXPECT_TRUE(reader.ok());
}

TEST(SpanReaderTest, PastTheEndEverythingIsZeroAndItHasFailedForGood) {
  const auto bytes = bytes_of({1, 2, 3});
  SpanReader reader(bytes);
  EXPECT_EQ(reader.be32(), 0u);
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(reader.u8(), 0u) << "there are bytes left, but what they mean is unknown";
  EXPECT_TRUE(reader.bytes(1).empty());
  reader.skip(1);
  EXPECT_EQ(reader.position(), 0u);
  EXPECT_FALSE(reader.ok());
}

TEST(SpanReaderTest, ACountThatIsHugeDoesNotOverflow) {
  const auto bytes = bytes_of({1, 2, 3});
  SpanReader reader(bytes);
  reader.u8();
  EXPECT_TRUE(reader.bytes(~size_t{0}).empty());
  EXPECT_FALSE(reader.ok());
  SpanReader empty{Bytes()};
  EXPECT_TRUE(empty.bytes(0).empty());
  EXPECT_TRUE(empty.ok());
}

// --- BufferSequence ------------------------------------------------------------------------------

// Memory in pieces of the given sizes; byte i of it has the value i % 251.
struct Pieces {
  explicit Pieces(const std::vector<size_t>& sizes) {
    size_t at = 0;
    for (size_t size : sizes) {
      memory.emplace_back(size);
      for (std::byte& byte : memory.back()) byte = static_cast<std::byte>(at++ % 251);
    }
    for (auto& piece : memory) parts.push_back({piece.data(), piece.size()});
  }
  MutableBuffers buffers() { return MutableBuffers(parts.data(), parts.size()); }

  std::vector<std::vector<std::byte>> memory;
  std::vector<iovec> parts;
};

std::vector<std::byte> gathered(const ConstBuffers& buffers) {
  std::vector<std::byte> all(buffers.size());
  copy_from_buffers(buffers, all);
  return all;
}
std::vector<std::byte> expected(size_t offset, size_t length) {
  std::vector<std::byte> all(length);
  for (size_t i = 0; i < length; ++i) all[i] = static_cast<std::byte>((offset + i) % 251);
  return all;
}

TEST(BufferSequenceTest, TheExampleOfTheHeader) {
  Pieces pieces({4096, 512, 65536});
  MutableBuffers slice = pieces.buffers().slice(4100, 1000);
  EXPECT_EQ(slice.size(), 1000u);
  EXPECT_FALSE(slice.is_single());
  std::vector<size_t> sizes;
  slice.for_each([&sizes](MutableBytes piece) { sizes.push_back(piece.size()); });
  EXPECT_EQ(sizes, (std::vector<size_t>{508, 492}));
  EXPECT_EQ(gathered(slice), expected(4100, 1000));
}

TEST(BufferSequenceTest, AnySliceOfAnySliceHoldsItsOwnBytes) {
  sim::for_each_seed(200, [](uint64_t seed) {
    Random random(seed);
    std::vector<size_t> sizes(1 + random.below(6));
    for (size_t& size : sizes) size = random.chance(20) ? 0 : random.below(300);
    Pieces pieces(sizes);
    ConstBuffers whole = pieces.buffers();
    for (int i = 0; i < 20; ++i) {
      const size_t offset = random.below(whole.size() + 1);
      const size_t length = random.below(whole.size() - offset + 1);
      ConstBuffers slice = whole.slice(offset, length);
      EXPECT_EQ(gathered(slice), expected(offset, length));
      const size_t inner = random.below(length + 1);
      ConstBuffers again = slice.slice(inner, length - inner);
      EXPECT_EQ(gathered(again), expected(offset + inner, length - inner));
      if (again.is_single() && !again.empty()) {
        EXPECT_EQ(again.single()[0], static_cast<std::byte>((offset + inner) % 251));
        EXPECT_EQ(again.single().size(), length - inner);
      }
    }
  });
}

TEST(BufferSequenceTest, WritesGoToTheirPlacesAlone) {
  Pieces pieces({100, 100, 100});
  MutableBuffers slice = pieces.buffers().slice(90, 120);
  std::vector<std::byte> source(70, std::byte{0xee});
  copy_to_buffers(source, slice);
  fill_zero(slice.slice(70, 50));
  std::vector<std::byte> all = gathered(pieces.buffers());
  std::vector<std::byte> wanted = expected(0, 300);
  std::fill(wanted.begin() + 90, wanted.begin() + 160, std::byte{0xee});
  std::fill(wanted.begin() + 160, wanted.begin() + 210, std::byte{0});
  EXPECT_EQ(all, wanted);
}

TEST(BufferSequenceTest, GivesIovecsUpToACapacity) {
  Pieces pieces({10, 0, 20, 30, 40});
  iovec parts[3];
  size_t bytes = 0;
  EXPECT_EQ(pieces.buffers().slice(5, 90).to_iovecs(parts, 3, bytes), 3u);
  EXPECT_EQ(bytes, 55u);
  EXPECT_EQ(parts[0].iov_len, 5u);
  EXPECT_EQ(parts[1].iov_len, 20u);
  EXPECT_EQ(parts[2].iov_base, pieces.memory[3].data());
  EXPECT_EQ(pieces.buffers().slice(5, 0).to_iovecs(parts, 3, bytes), 0u);
  EXPECT_EQ(bytes, 0u);
}

TEST(BufferSequenceTest, KnowsWhetherAllItsPiecesAreAligned) {
  alignas(512) static std::byte memory[4096];
  MutableBytes all(memory);
  EXPECT_TRUE(MutableBuffers(all.subspan(512, 1024)).is_memory_aligned(512));
  EXPECT_FALSE(MutableBuffers(all.subspan(8, 512)).is_memory_aligned(512));
  EXPECT_FALSE(MutableBuffers(all.subspan(512, 100)).is_memory_aligned(512));
  const iovec parts[] = {{memory, 512}, {memory + 1024, 520}};
  EXPECT_FALSE(MutableBuffers(parts, 2).is_memory_aligned(512));
  EXPECT_TRUE(MutableBuffers(parts, 2).slice(0, 1024).is_memory_aligned(512));
}

TEST(BufferSequenceDeathTest, ASliceStaysInside) {
  Pieces pieces({100});
  EXPECT_DEATH(static_cast<void>(pieces.buffers().slice(50, 51)), "CHECK failed");
  EXPECT_DEATH(static_cast<void>(pieces.buffers().slice(101, 0)), "CHECK failed");
}

}  // namespace
}  // namespace ringdisk
