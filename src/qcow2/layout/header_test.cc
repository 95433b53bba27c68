// SPDX-License-Identifier: Apache-2.0
// Headers: what is written is read again, and what is damaged, hostile or not supported is refused
// with its reason.
#include "qcow2/layout/header.h"

#include <gtest/gtest.h>

#include "base/diagnostics.h"
#include "base/endian.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kGiB = limits::kGiB;

Header plain_header() {
  Header header;
  header.size = ByteCount(10 * kGiB);
  header.l1_size = 20;
  header.l1_table = HostOffset(3 << 16);
  header.refcount_table = HostOffset(1 << 16);
  header.refcount_table_clusters = 1;
  return header;
}

HeaderExtension extension(uint32_t type, std::string_view text) {
  Bytes bytes = as_bytes(text);
  return {static_cast<ExtensionType>(type), std::vector<std::byte>(bytes.begin(), bytes.end())};
}

// The sentence with which `bytes` are refused; "" where they are not.
std::string refusal(Bytes bytes) {
  Diagnostics diagnostics;
  uint32_t node = diagnostics.add_node("disk.qcow2");
  Result<Header> header = parse_header(bytes, diagnostics, node);
  if (!header.ok()) return diagnostics.describe(header.error());
  Result<void> features = check_features(header.value(), diagnostics, node);
  return features.ok() ? "" : diagnostics.describe(features.error());
}
std::string refusal(const Header& header) { return refusal(encode_header(header).value()); }

std::string refused_place(const Header& header, uint64_t file_size) {
  Diagnostics diagnostics;
  Result<void> places =
      check_places(header, ByteCount(file_size), diagnostics, diagnostics.add_node("d"));
  return places.ok() ? "" : diagnostics.describe(places.error());
}

Header parsed(Bytes bytes) {
  Diagnostics diagnostics;
  Result<Header> header = parse_header(bytes, diagnostics, 0);
  CHECK(header.ok());
  return std::move(header).value();
}

TEST(HeaderTest, WhatIsWrittenIsReadAgain) {
  Header header = plain_header();
  header.refcount_order = 6;
  header.compatible_features = kCompatibleLazyRefcounts | 1 << 9;
  header.autoclear_features = 1 << 5;
  header.incompatible_features = kIncompatibleCompression | kIncompatibleDirty;
  header.compression = Compression::kZstd;
  header.snapshot_count = 2;
  header.snapshot_table = HostOffset(7 << 16);
  header.backing_name = "base.img";
  header.extensions.push_back(extension(0xe2792aca, "raw"));
  header.extensions.push_back(extension(0x12345678, "what nobody knows"));
  Header again = parsed(encode_header(header).value());
  EXPECT_EQ(again.size, header.size);
  EXPECT_EQ(again.refcount_order, 6u);
  EXPECT_EQ(again.compatible_features, header.compatible_features);
  EXPECT_EQ(again.autoclear_features, header.autoclear_features);
  EXPECT_TRUE(again.is_dirty());
  EXPECT_FALSE(again.is_corrupt());
  EXPECT_EQ(again.compression, Compression::kZstd);
  EXPECT_EQ(again.snapshot_count, 2u);
  EXPECT_EQ(again.backing_name, "base.img");
  EXPECT_EQ(again.backing_format, "raw");
  ASSERT_EQ(again.extensions.size(), 2u);
  EXPECT_EQ(as_text(again.extensions[1].content), "what nobody knows");
  EXPECT_EQ(encode_header(again).value(), encode_header(header).value());
}

TEST(HeaderTest, FieldsThatNobodyKnowsAreKept) {
  Header header = plain_header();
  header.unknown_fields.assign(15, std::byte{7});
  Header again = parsed(encode_header(header).value());
  EXPECT_EQ(again.header_length, kVersion3HeaderBytes + 16);
  EXPECT_EQ(again.unknown_fields, header.unknown_fields);
}

TEST(HeaderTest, Version2HasNoFeaturesAnd16BitRefcounts) {
  Header header = plain_header();
  header.version = 2;
  Header again = parsed(encode_header(header).value());
  EXPECT_EQ(again.version, 2u);
  EXPECT_EQ(again.refcount_order, 4u);
  EXPECT_EQ(again.incompatible_features, 0u);
}

TEST(HeaderTest, ExtensionsEndWhereTheBackingNameBegins) {
  // As old programs wrote it: no end mark, the name directly behind the extensions.
  Header header = plain_header();
  header.extensions.push_back(extension(0xe2792aca, "qcow2"));
  std::vector<std::byte> bytes = encode_header(header).value();
  bytes.resize(bytes.size() - 8);
  store_be64(&bytes[8], bytes.size());
  store_be32(&bytes[16], 6);
  Bytes name = as_bytes("below!");
  bytes.insert(bytes.end(), name.begin(), name.end());
  Header again = parsed(bytes);
  EXPECT_EQ(again.backing_name, "below!");
  EXPECT_EQ(again.backing_format, "qcow2");
}

TEST(HeaderTest, NumbersBeyondTheirLimitsAreRefused) {
  auto with = [](auto change) {
    Header header = plain_header();
    change(header);
    return refusal(header);
  };
  EXPECT_EQ(refusal(plain_header()), "");
  EXPECT_NE(with([](Header& h) { h.l1_size = 5 << 20; }), "");
  EXPECT_NE(with([](Header& h) { h.l1_size = 19; }), "");
  EXPECT_NE(with([](Header& h) { h.size = ByteCount(~uint64_t{0}); }), "");
  EXPECT_NE(with([](Header& h) { h.refcount_order = 7; }), "");
  EXPECT_NE(with([](Header& h) { h.refcount_table_clusters = 129; }), "");
  EXPECT_NE(with([](Header& h) { h.l1_table = HostOffset(uint64_t{1} << 56); }), "");
  EXPECT_NE(with([](Header& h) { h.refcount_table = HostOffset(~uint64_t{65535}); }), "");
  EXPECT_NE(with([](Header& h) { h.snapshot_count = 65537; }), "");
  EXPECT_NE(with([](Header& h) { h.l1_table = HostOffset(512); }), "");
  EXPECT_NE(with([](Header& h) { h.refcount_table = HostOffset(65537); }), "");
}

TEST(HeaderTest, DamagedFieldsAreRefused) {
  const std::vector<std::byte> good = encode_header(plain_header()).value();
  auto with = [&](size_t at, uint32_t value) {
    std::vector<std::byte> bytes = good;
    store_be32(&bytes[at], value);
    return refusal(bytes);
  };
  EXPECT_EQ(with(0, 0x514649fc), "disk.qcow2: not a qcow2 image");
  EXPECT_EQ(with(4, 4), "disk.qcow2: qcow2 version 4 is not known");
  EXPECT_NE(with(20, 8), "");
  EXPECT_NE(with(20, 22), "");
  EXPECT_NE(with(20, 255), "");
  EXPECT_NE(with(100, 96), "");
  EXPECT_NE(with(100, 108), "");
  EXPECT_NE(with(100, 0xfffffff8), "");
  EXPECT_NE(with(12, 70000), "");  // the backing name, beyond the cluster
  for (size_t length = 0; length < good.size() - 8; ++length) {
    Diagnostics diagnostics;
    Result<Header> cut = parse_header(Bytes(good).first(length), diagnostics, 0);
    EXPECT_EQ(cut.ok(), length >= kVersion3HeaderBytes) << length;
  }
}

TEST(HeaderTest, AnExtensionBeyondTheClusterIsRefused) {
  Header header = plain_header();
  header.extensions.push_back(extension(0x12345678, "12345678"));
  std::vector<std::byte> bytes = encode_header(header).value();
  store_be32(&bytes[kVersion3HeaderBytes + 4], 0xffffffff);
  EXPECT_NE(refusal(bytes), "");
}

TEST(HeaderTest, CompressionFeatureAndTypeMustAgree) {
  Header header = plain_header();
  header.incompatible_features = kIncompatibleCompression;
  EXPECT_NE(refusal(header), "");
  header.compression = Compression::kZstd;
  EXPECT_EQ(refusal(header), "");
  header.incompatible_features = 0;
  EXPECT_NE(refusal(header), "");
}

TEST(HeaderTest, UnknownFeaturesAreNamedByTheImagesOwnTable) {
  Header header = plain_header();
  header.incompatible_features = uint64_t{1} << 17 | uint64_t{1} << 40;
  std::vector<std::byte> table = feature_name_table();
  std::vector<std::byte> entry(48);
  entry[1] = std::byte{17};
  copy_bytes(as_bytes("time \x1b travel"), MutableBytes(entry).subspan(2, 13));
  table.insert(table.end(), entry.begin(), entry.end());
  header.extensions.push_back({ExtensionType::kFeatureNames, table});
  EXPECT_EQ(refusal(header),
            "disk.qcow2: the image uses incompatible features that are not known: "
            "'time ? travel', 'bit 40'");
}

TEST(HeaderTest, FeaturesThatAreNotSupportedAreNamed) {
  Header header = plain_header();
  header.encryption = Encryption::kAes;
  EXPECT_NE(refusal(header).find("legacy AES"), std::string::npos);
  set_encryption_header(header, HostRange(HostOffset(1 << 20), ByteCount(512)));
  header.incompatible_features |= kIncompatibleDataFile;
  EXPECT_NE(refusal(header).find("LUKS"), std::string::npos);
}

TEST(HeaderTest, TablesBeyondTheFileOrOnEachOtherAreRefused) {
  const uint64_t file_size = 4 << 16;
  EXPECT_EQ(refused_place(plain_header(), file_size), "");
  EXPECT_EQ(refused_place(plain_header(), file_size - 65535), "");
  EXPECT_NE(refused_place(plain_header(), file_size - 65536).find("cut short"), std::string::npos);
  Header header = plain_header();
  header.l1_table = header.refcount_table;
  EXPECT_NE(refused_place(header, file_size).find("lies on"), std::string::npos);
  header = plain_header();
  header.refcount_table = HostOffset(0);
  EXPECT_NE(refused_place(header, file_size), "");
  header = plain_header();
  header.l1_table = HostOffset(~uint64_t{65535});
  EXPECT_NE(refused_place(header, file_size), "");
  header = plain_header();
  header.snapshot_count = 1;
  header.snapshot_table = header.l1_table;
  EXPECT_NE(refused_place(header, file_size), "");
}

TEST(HeaderTest, AHeaderThatDoesNotFitItsClusterIsNotWritten) {
  Header header = plain_header();
  header.cluster_bits = 9;
  header.backing_name = std::string(500, 'x');
  EXPECT_FALSE(encode_header(header).ok());
}

}  // namespace
}  // namespace ringdisk::qcow2
