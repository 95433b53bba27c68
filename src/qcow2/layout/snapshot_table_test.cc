// SPDX-License-Identifier: Apache-2.0
// Snapshot tables laid out by hand, byte by byte as the specification has them: read whole, and
// refused where they are cut or break a limit.
#include "qcow2/layout/snapshot_table.h"

#include <gtest/gtest.h>

#include "base/endian.h"
#include "base/limits.h"

namespace ringdisk::qcow2 {
namespace {

// One entry with `extra` bytes of extra content (each its own), padded to a multiple of 8.
std::vector<std::byte> entry(std::string_view id, std::string_view name, uint32_t extra) {
  std::vector<std::byte> bytes(40 + extra);
  store_be64(&bytes[0], 0x50000);
  store_be32(&bytes[8], 4);
  store_be16(&bytes[12], static_cast<uint16_t>(id.size()));
  store_be16(&bytes[14], static_cast<uint16_t>(name.size()));
  store_be32(&bytes[16], 1'700'000'000);
  store_be32(&bytes[20], 5);
  store_be64(&bytes[24], 77);
  store_be32(&bytes[32], 4096);
  store_be32(&bytes[36], extra);
  if (extra >= 8) store_be64(&bytes[40], 1 << 20);
  if (extra >= 16) store_be64(&bytes[48], 1 << 30);
  if (extra >= 24) store_be64(&bytes[56], 9);
  for (std::string_view text : {id, name}) {
    Bytes letters = as_bytes(text);
    bytes.insert(bytes.end(), letters.begin(), letters.end());
  }
  bytes.resize((bytes.size() + 7) / 8 * 8);
  return bytes;
}

std::vector<std::byte> two_entries() {
  std::vector<std::byte> table = entry("1", "before", 24);
  std::vector<std::byte> second = entry("2", "a longer name", 0);
  table.insert(table.end(), second.begin(), second.end());
  return table;
}

TEST(SnapshotTableTest, ANameThatIsAnothersIdMeansWhatItIsAskedFor) {
  SnapshotTable table;
  table.snapshots.resize(4);
  const char* names[] = {"one", "one", "1", "x"};
  for (size_t i = 0; i < 4; ++i) {
    table.snapshots[i].id = std::to_string(i + 1);
    table.snapshots[i].name = names[i];
  }
  for (Precedence first : {Precedence::kId, Precedence::kName}) {
    EXPECT_EQ(find_snapshot(table, "1", first), first == Precedence::kId ? 0u : 2u);
    EXPECT_EQ(find_snapshot(table, "one", first), 0u);
    EXPECT_EQ(find_snapshot(table, "4", first), 3u);
    EXPECT_EQ(find_snapshot(table, "x", first), 3u);
    EXPECT_EQ(find_snapshot(table, "2", first), 1u);
    EXPECT_EQ(find_snapshot(table, "5", first), std::nullopt);
  }
}

TEST(SnapshotTableTest, ReadsEveryField) {
  const std::vector<std::byte> table = two_entries();
  Result<SnapshotTable> parsed = parse_snapshots(table, 2);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed.value().length, table.size());
  const Snapshot& first = parsed.value().snapshots[0];
  EXPECT_EQ(first.l1_table, HostOffset(0x50000));
  EXPECT_EQ(first.l1_size, 4u);
  EXPECT_EQ(first.id, "1");
  EXPECT_EQ(first.name, "before");
  EXPECT_EQ(first.date_seconds, 1'700'000'000u);
  EXPECT_EQ(first.date_nanoseconds, 5u);
  EXPECT_EQ(first.vm_clock_nanoseconds, 77u);
  EXPECT_EQ(first.vm_state_size, uint64_t{1 << 20});
  EXPECT_EQ(first.disk_size, uint64_t{1 << 30});
  EXPECT_EQ(first.instruction_count, uint64_t{9});
}

TEST(SnapshotTableTest, FieldsOfVersion2AloneAreEnough) {
  Result<SnapshotTable> parsed = parse_snapshots(two_entries(), 2);
  ASSERT_TRUE(parsed.ok());
  const Snapshot& second = parsed.value().snapshots[1];
  EXPECT_EQ(second.name, "a longer name");
  EXPECT_EQ(second.vm_state_size, uint64_t{4096});
  EXPECT_FALSE(second.disk_size.has_value());
  EXPECT_FALSE(second.instruction_count.has_value());
}

TEST(SnapshotTableTest, ATableCutAnywhereIsRefused) {
  const std::vector<std::byte> table = two_entries();
  // The padding of the last entry may be missing.
  const size_t needed = table.size() - (8 - (40 + 1 + 13) % 8) % 8;
  for (size_t length = 0; length < needed; ++length) {
    Result<SnapshotTable> parsed = parse_snapshots(Bytes(table).first(length), 2);
    EXPECT_FALSE(parsed.ok()) << length;
  }
  EXPECT_TRUE(parse_snapshots(Bytes(table).first(needed), 2).ok());
}

TEST(SnapshotTableTest, MoreExtraDataThanAnyProgramTakesIsReadAndToldApart) {
  for (uint32_t extra : {24U, kSnapshotExtraBytesMax, kSnapshotExtraBytesMax + 1}) {
    Result<SnapshotTable> parsed = parse_snapshots(entry("1", "n", extra), 1);
    ASSERT_TRUE(parsed.ok()) << extra;
    EXPECT_EQ(parsed.value().snapshots[0].has_too_much(), extra > kSnapshotExtraBytesMax) << extra;
  }
}

TEST(SnapshotTableTest, NumbersBeyondTheirLimitsAreRefused) {
  std::vector<std::byte> table = entry("1", "n", 0);
  store_be32(&table[36], static_cast<uint32_t>(table.size()));
  EXPECT_FALSE(parse_snapshots(table, 1).ok());
  Result<SnapshotTable> too_many = parse_snapshots(table, limits::kQcow2SnapshotsMax + 1);
  ASSERT_FALSE(too_many.ok());
  EXPECT_EQ(too_many.error().kind, ErrorKind::kLimit);
}

}  // namespace
}  // namespace ringdisk::qcow2
