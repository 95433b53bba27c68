// SPDX-License-Identifier: Apache-2.0
// Headers written anew: nothing that nobody knows is lost, and however the power fails the disk
// holds the old header or the new one.
#include "qcow2/edit/header_rewrite.h"

#include <gtest/gtest.h>

#include "base/diagnostics.h"
#include "base/random.h"
#include "sim/seeds.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kSectorBytes = 512;

HeaderExtension unknown_extension(uint32_t type, size_t length) {
  HeaderExtension extension{static_cast<ExtensionType>(type), {}};
  for (size_t i = 0; i < length; ++i) extension.content.push_back(static_cast<std::byte>(i + type));
  return extension;
}

Header header_of(uint32_t cluster_bits) {
  Header header;
  header.cluster_bits = cluster_bits;
  header.size = ByteCount(1 << 20);
  header.l1_size = 4096;
  header.l1_table = HostOffset(uint64_t{3} << cluster_bits);
  header.refcount_table = HostOffset(uint64_t{1} << cluster_bits);
  header.refcount_table_clusters = 1;
  return header;
}

Result<Header> parse(Bytes bytes) {
  Diagnostics diagnostics;
  return parse_header(bytes, diagnostics, 0);
}

// The header's cluster as it stands on a disk.
std::vector<std::byte> cluster_of(const Header& header) {
  std::vector<std::byte> bytes = encode_header(header).value();
  bytes.resize(uint64_t{1} << header.cluster_bits);
  return bytes;
}

// Whether `bytes` say what `wanted` says, feature names aside, which may be dropped.
bool says(Bytes bytes, Header wanted) {
  Result<Header> parsed = parse(bytes);
  if (!parsed.ok()) return false;
  Header header = std::move(parsed).value();
  remove_extension(header, ExtensionType::kFeatureNames);
  remove_extension(wanted, ExtensionType::kFeatureNames);
  return encode_header(header).value() == encode_header(wanted).value();
}

void apply(std::vector<std::byte>& disk, const HeaderWrite& write) {
  ASSERT_LE(write.at + write.bytes.size(), disk.size());
  copy_bytes(write.bytes, MutableBytes(disk).subspan(write.at, write.bytes.size()));
}

// The power fails in `write`: some of its sectors have reached the disk.
std::vector<std::byte> torn(std::vector<std::byte> disk, const HeaderWrite& write, Random& random) {
  for (uint64_t at = 0; at < write.bytes.size(); at += kSectorBytes) {
    if (random.chance(50)) continue;
    const Bytes sector = Bytes(write.bytes).subspan(at, kSectorBytes);
    copy_bytes(sector, MutableBytes(disk).subspan(write.at + at, kSectorBytes));
  }
  return disk;
}

void expect_safe_rewrite(const Header& old, const Header& wanted, uint64_t seed) {
  std::vector<std::byte> disk = cluster_of(old);
  Result<Header> parsed = parse(disk);
  ASSERT_TRUE(parsed.ok());
  Result<std::vector<HeaderWrite>> plan = plan_header_rewrite(disk, parsed.value().end, wanted);
  ASSERT_TRUE(plan.ok());
  Random random(seed);
  for (const HeaderWrite& write : plan.value()) {
    for (int i = 0; i < 20; ++i) {
      const std::vector<std::byte> left = torn(disk, write, random);
      EXPECT_TRUE(says(left, old) || says(left, wanted));
    }
    apply(disk, write);
  }
  EXPECT_TRUE(says(disk, wanted));
  Result<Header> again = parse(disk);
  ASSERT_TRUE(again.ok());
  // In place again, with nothing behind it.
  const Bytes behind = Bytes(disk).subspan(again.value().end);
  EXPECT_TRUE(std::ranges::all_of(behind, [](std::byte one) { return one == std::byte{0}; }));
}

Header drawn(Random& random, uint32_t cluster_bits) {
  Header header = header_of(cluster_bits);
  if (random.chance(70)) add_feature_names(header);
  const uint64_t room = std::min<uint64_t>(uint64_t{1} << cluster_bits, 8192) / 6;
  if (random.chance(60)) {
    header.extensions.push_back(unknown_extension(0x77777777, random.below(room)));
  }
  if (random.chance(60)) set_backing(header, std::string(1 + random.below(100), 'b'), "qcow2");
  if (random.chance(30)) header.unknown_fields.assign(7 + 8 * random.below(3), std::byte{9});
  return header;
}

TEST(HeaderRewriteTest, ThePowerMayFailAnywhere) {
  sim::for_each_seed(300, [](uint64_t seed) {
    Random random(seed);
    const auto cluster_bits = static_cast<uint32_t>(11 + random.below(8));
    const Header old = drawn(random, cluster_bits);
    Header wanted = drawn(random, cluster_bits);
    if (random.chance(20)) wanted.size = ByteCount(77 * 512);
    if (random.chance(20)) wanted.version = 2;
    if (wanted.version == 2) wanted.unknown_fields.clear();
    expect_safe_rewrite(old, wanted, seed);
  });
}

TEST(HeaderRewriteTest, FeatureNamesGiveWayInSmallClusters) {
  for (uint32_t cluster_bits : {9u, 10u}) {
    Header old = header_of(cluster_bits);
    add_feature_names(old);
    Header wanted = old;
    set_backing(wanted, std::string(150, 'b'), "raw");
    expect_safe_rewrite(old, wanted, 1);
  }
}

TEST(HeaderRewriteTest, WhatIsThereAlreadyIsNotWritten) {
  Header header = header_of(16);
  set_backing(header, "base.img", "raw");
  const std::vector<std::byte> disk = cluster_of(header);
  const uint64_t end = parse(disk).value().end;
  EXPECT_TRUE(plan_header_rewrite(disk, end, header).value().empty());
}

TEST(HeaderRewriteTest, ATooSmallClusterIsToldOf) {
  Header old = header_of(9);
  Header wanted = old;
  set_backing(wanted, std::string(500, 'b'), "raw");
  const std::vector<std::byte> disk = cluster_of(old);
  EXPECT_EQ(plan_header_rewrite(disk, parse(disk).value().end, wanted).error().kind,
            ErrorKind::kLimit);
}

TEST(HeaderRewriteTest, ADetourLeavesNoFillerBehind) {
  Header old = header_of(16);
  old.extensions.push_back(unknown_extension(0x11111111, 900));
  Header wanted = old;
  set_backing(wanted, "base.img", "raw");
  std::vector<std::byte> disk = cluster_of(old);
  const auto plan = plan_header_rewrite(disk, parse(disk).value().end, wanted).value();
  ASSERT_EQ(plan.size(), size_t{5});
  apply(disk, plan[0]);
  apply(disk, plan[1]);
  // The way round is a whole header of its own, which another rewrite could begin from.
  const Header detour = parse(disk).value();
  EXPECT_EQ(detour.extensions.size(), size_t{2});
  EXPECT_EQ(detour.backing_name, "base.img");
  for (size_t i = 2; i < plan.size(); ++i) apply(disk, plan[i]);
  EXPECT_EQ(parse(disk).value().extensions.size(), size_t{2});
}

}  // namespace
}  // namespace ringdisk::qcow2
