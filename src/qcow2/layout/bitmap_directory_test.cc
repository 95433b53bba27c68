// SPDX-License-Identifier: Apache-2.0
// Bitmap directories laid out by hand, byte by byte as the specification has them: read whole,
// judged, and refused where they are cut or break a bound.
#include "qcow2/layout/bitmap_directory.h"

#include <gtest/gtest.h>

#include "base/endian.h"

namespace ringdisk::qcow2 {
namespace {

const Geometry kGeometry(16, 4);
constexpr ByteCount kDiskSize(uint64_t{1} << 40);

std::vector<std::byte> entry_bytes(std::string_view name, uint32_t extra) {
  std::vector<std::byte> bytes(24 + extra, std::byte{0x5a});
  store_be64(&bytes[0], 0x60000);
  store_be32(&bytes[8], 32);
  store_be32(&bytes[12], extra == 0 ? 2 : 6);
  bytes[16] = std::byte{1};
  bytes[17] = std::byte{16};
  store_be16(&bytes[18], static_cast<uint16_t>(name.size()));
  store_be32(&bytes[20], extra);
  Bytes letters = as_bytes(name);
  bytes.insert(bytes.end(), letters.begin(), letters.end());
  bytes.resize((bytes.size() + 7) / 8 * 8);
  return bytes;
}

std::vector<std::byte> two_entries() {
  std::vector<std::byte> directory = entry_bytes("b0", 0);
  std::vector<std::byte> second = entry_bytes("another name", 5);
  directory.insert(directory.end(), second.begin(), second.end());
  return directory;
}

BitmapEntry sound_entry() {
  BitmapEntry entry;
  entry.table = HostOffset(0x60000);
  entry.table_entries = 32;  // 1 TiB at 64 KiB: 2^24 bits, 2 MiB
  entry.flags = kBitmapAuto;
  entry.name = "b0";
  return entry;
}

TEST(BitmapDirectoryTest, ReadsEveryFieldAndEncodesItAgain) {
  const std::vector<std::byte> directory = two_entries();
  Result<std::vector<BitmapEntry>> parsed = parse_bitmap_directory(directory, 2);
  ASSERT_TRUE(parsed.ok());
  const BitmapEntry& first = parsed.value()[0];
  EXPECT_EQ(first.table, HostOffset(0x60000));
  EXPECT_EQ(first.table_entries, 32u);
  EXPECT_TRUE(first.is_auto());
  EXPECT_FALSE(first.is_in_use());
  EXPECT_EQ(first.granularity_bits, 16);
  EXPECT_EQ(first.name, "b0");
  EXPECT_TRUE(first.extra.empty());
  const BitmapEntry& second = parsed.value()[1];
  EXPECT_EQ(second.name, "another name");
  EXPECT_EQ(second.extra, std::vector<std::byte>(5, std::byte{0x5a}));
  EXPECT_EQ(encode_bitmap_directory(parsed.value()), directory);
}

TEST(BitmapDirectoryTest, ADirectoryCutOrTooLongAnywhereIsRefused) {
  std::vector<std::byte> directory = two_entries();
  for (size_t length = 0; length < directory.size(); ++length) {
    EXPECT_FALSE(parse_bitmap_directory(Bytes(directory).first(length), 2).ok()) << length;
  }
  EXPECT_FALSE(parse_bitmap_directory(directory, 1).ok());
  EXPECT_FALSE(parse_bitmap_directory(directory, 3).ok());
}

TEST(BitmapDirectoryTest, NamesAreNotEmptyAndNotShared) {
  EXPECT_FALSE(parse_bitmap_directory(entry_bytes("", 0), 1).ok());
  EXPECT_FALSE(parse_bitmap_directory(entry_bytes(std::string_view("a\0b", 3), 0), 1).ok());
  std::vector<std::byte> twice = entry_bytes("b0", 0);
  twice.insert(twice.end(), twice.begin(), twice.begin() + 32);
  EXPECT_FALSE(parse_bitmap_directory(twice, 2).ok());
}

TEST(BitmapDirectoryTest, TheExtensionKeepsItsBounds) {
  BitmapsExtension sound;
  sound.count = 2;
  sound.directory_bytes = 64;
  sound.directory = HostOffset(0x80000);
  auto is_taken = [](const BitmapsExtension& extension) {
    return parse_bitmaps_extension(encode_bitmaps_extension(extension), kGeometry).ok();
  };
  EXPECT_TRUE(is_taken(sound));
  BitmapsExtension wrong = sound;
  wrong.count = 0;
  EXPECT_FALSE(is_taken(wrong));
  wrong = sound;
  wrong.count = kBitmapsMax + 1;
  EXPECT_FALSE(is_taken(wrong));
  wrong = sound;
  wrong.directory_bytes = kBitmapDirectoryBytesMax + 8;
  EXPECT_FALSE(is_taken(wrong));
  wrong = sound;
  wrong.directory_bytes = 47;  // less than two entries
  EXPECT_FALSE(is_taken(wrong));
  wrong = sound;
  wrong.directory = HostOffset(0x80200);
  EXPECT_FALSE(is_taken(wrong));
  std::vector<std::byte> content = encode_bitmaps_extension(sound);
  EXPECT_FALSE(parse_bitmaps_extension(Bytes(content).first(23), kGeometry).ok());
  content.resize(32);
  EXPECT_FALSE(parse_bitmaps_extension(content, kGeometry).ok());
}

TEST(BitmapDirectoryTest, TellsFaultsOfAnEntry) {
  EXPECT_EQ(fault_of_bitmap(sound_entry(), kDiskSize, kGeometry), nullptr);
  auto fault_with = [](auto change) {
    BitmapEntry entry = sound_entry();
    change(entry);
    return fault_of_bitmap(entry, kDiskSize, kGeometry) != nullptr;
  };
  EXPECT_TRUE(fault_with([](BitmapEntry& entry) { entry.table = HostOffset(0); }));
  EXPECT_TRUE(fault_with([](BitmapEntry& entry) { entry.table = HostOffset(0x60200); }));
  EXPECT_TRUE(fault_with([](BitmapEntry& entry) { entry.flags |= 8; }));
  EXPECT_TRUE(fault_with([](BitmapEntry& entry) { entry.granularity_bits = 64; }));
  EXPECT_TRUE(fault_with([](BitmapEntry& entry) { entry.table_entries = 31; }));
  EXPECT_TRUE(fault_with([](BitmapEntry& entry) { entry.type = 2; }));
  // What was not saved may have any size.
  EXPECT_FALSE(fault_with([](BitmapEntry& entry) {
    entry.table_entries = 31;
    entry.flags |= kBitmapInUse;
  }));
}

TEST(BitmapDirectoryTest, TellsWhatCannotBeUsedHere) {
  EXPECT_EQ(why_unusable(sound_entry(), kDiskSize), nullptr);
  auto is_unusable = [](auto change) {
    BitmapEntry entry = sound_entry();
    change(entry);
    return why_unusable(entry, kDiskSize) != nullptr;
  };
  EXPECT_TRUE(is_unusable([](BitmapEntry& entry) { entry.type = 2; }));
  EXPECT_TRUE(is_unusable([](BitmapEntry& entry) { entry.granularity_bits = 8; }));
  EXPECT_TRUE(is_unusable([](BitmapEntry& entry) { entry.granularity_bits = 32; }));
  EXPECT_TRUE(is_unusable([](BitmapEntry& entry) { entry.name.assign(1024, 'x'); }));
  EXPECT_TRUE(is_unusable([](BitmapEntry& entry) { entry.extra.resize(8); }));
  BitmapEntry fine = sound_entry();
  fine.granularity_bits = 9;
  EXPECT_EQ(why_unusable(fine, ByteCount(uint64_t{2} << 40)), nullptr);
  EXPECT_NE(why_unusable(fine, ByteCount((uint64_t{2} << 40) + 1)), nullptr);
  EXPECT_FALSE(is_unusable([](BitmapEntry& entry) {
    entry.extra.resize(8);
    entry.flags |= kBitmapExtraCompatible;
  }));
}

TEST(BitmapDirectoryTest, SizesFollowTheDisk) {
  EXPECT_EQ(bitmap_bytes(kDiskSize, 16), uint64_t{2} << 20);
  EXPECT_EQ(bitmap_table_entries(kDiskSize, 16, kGeometry), 32u);
  EXPECT_EQ(bitmap_bytes(ByteCount(1), 16), 1u);
  EXPECT_EQ(bitmap_bytes(ByteCount((8 << 16) + 1), 16), 2u);
  EXPECT_EQ(bitmap_bytes(ByteCount(0), 16), 0u);
}

TEST(BitmapDirectoryTest, TellsFaultsOfTableEntries) {
  auto has_fault = [](uint64_t raw) {
    return fault_of_bitmap_table_entry(raw, kGeometry) != nullptr;
  };
  EXPECT_FALSE(has_fault(0));
  EXPECT_FALSE(has_fault(kBitmapAllOnes));
  EXPECT_FALSE(has_fault(0x70000));
  EXPECT_TRUE(has_fault(0x70001));
  EXPECT_TRUE(has_fault(0x70200));
  EXPECT_TRUE(has_fault(0x2));
  EXPECT_TRUE(has_fault(uint64_t{1} << 56));
}

}  // namespace
}  // namespace ringdisk::qcow2
