// SPDX-License-Identifier: Apache-2.0
// Compaction of images whose guest data is enciphered by the place it lies at: what moves is
// deciphered and enciphered anew, tables are moved as they are, and the encryption header stays
// where it is; the power failing anywhere in it, every request of it failing once. The cipher is a
// toy (toy_encryption_test.h); interop/compact_test.py has the real one.
#include <gtest/gtest.h>

#include "qcow2/compact/compact_stage_test.h"

namespace ringdisk::qcow2 {
namespace {

TestImage drawn_encrypted_image(uint64_t seed) {
  TestImage image = drawn_edited_image_or_extended(seed);
  image.is_encrypted = true;
  return image;
}

TEST(CompactEncryptedTest, WhatMovesIsEncipheredAnew) {
  sim::for_each_seed(40, [](uint64_t seed) {
    const TestImage image = drawn_encrypted_image(seed);
    HolesOptions options;
    options.snapshots = seed % 2 == 0;
    options.filled = seed % 3 == 0;
    options.bitmaps = image.version >= 3 && seed % 4 == 1;
    CompactStage stage(image, seed, options, sim::SimDiskOptions::file());
    expect_compacted(stage, small_limits(seed));
    stage.expect_writable(seed + 1);
  });
}

TEST(CompactEncryptedTest, NoHoleIsLeftAndTheHeaderIsNoObstacle) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestImage image;
    image.is_encrypted = true;
    image.cluster_bits = 12 + seed % 3;  // so that every table fits a cluster
    HolesOptions options;
    options.snapshots = seed % 2 == 0;
    CompactStage stage(image, seed, options, sim::SimDiskOptions::file());
    const Result<CompactReport> done = stage.compact(CompactLimits());
    ASSERT_TRUE(done.ok()) << stage.world.diagnostics().describe(done.error());
    for (const std::string& obstacle : done.value().obstacles) ADD_FAILURE() << obstacle;
    EXPECT_EQ(stage.file_clusters(), used_clusters(stage.disk));
    stage.expect_sound();
  });
}

// Where a crypto sector is smaller than the device's block, tables and data share one.
TEST(CompactEncryptedTest, LeavesABackingImageAndADeviceAlone) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestImage image = drawn_encrypted_image(seed);
    image.backing_bytes = seed % 2 == 0 ? 300 << 10 : 0;
    const sim::SimDiskOptions device =
        sim::SimDiskOptions::block_device(ByteCount(16 << 20), seed % 3 == 0 ? 4096 : 512);
    CompactStage stage(image, seed, HolesOptions(),
                       seed % 4 == 0 ? sim::SimDiskOptions::file() : device);
    const Result<CompactReport> done = stage.compact(small_limits(seed));
    ASSERT_TRUE(done.ok()) << stage.world.diagnostics().describe(done.error());
    stage.expect_sound();
    stage.expect_writable(seed + 1);
  });
}

// --- a header that lies behind everything, as no program here makes it

uint64_t word_on(const sim::SimDisk& disk, uint64_t at) { return entry_on(disk, at); }

void set_refcount_on(sim::SimDisk& disk, const Geometry& geometry, uint64_t cluster,
                     uint16_t refcount) {
  const uint64_t table = geometry.cluster_size();  // image_fixture_test.h
  const uint64_t block = cluster / geometry.refcount_block_entries();
  const uint64_t block_at = word_on(disk, table + block * kEntryBytes);
  ASSERT_NE(block_at, 0u);
  std::byte counter[2];
  store_be16(counter, refcount);
  disk.poke(block_at + cluster % geometry.refcount_block_entries() * 2, counter);
}

// Of an image with refcounts of 16 bits.
void put_header_last(sim::SimDisk& disk) {
  Diagnostics diagnostics;
  std::vector<std::byte> front(std::min<uint64_t>(disk.size(), kHeaderBytesMax));
  disk.peek(0, front);
  const Header header = parse_header(front, diagnostics, 0).value();
  const Geometry geometry = header.geometry();
  const HostRange place = header.encryption_header().value();
  const uint64_t clusters = geometry.clusters_of(place.length.value());
  const uint64_t first = geometry.host_cluster(place.offset).value();
  const uint64_t last = geometry.clusters_of(disk.size());
  std::vector<std::byte> bytes(clusters * geometry.cluster_size());
  disk.peek(place.offset.value(), bytes);
  disk.poke(geometry.host_offset(ClusterIndex(last)).value(), bytes);
  for (uint64_t i = 0; i < clusters; ++i) {
    set_refcount_on(disk, geometry, first + i, 0);
    set_refcount_on(disk, geometry, last + i, 1);
  }
  put_entry_on(disk, header.find_extension(ExtensionType::kEncryptionHeader)->place,
               geometry.host_offset(ClusterIndex(last)).value());
}

TEST(CompactEncryptedTest, AHeaderAtTheEndStaysAndEndsTheFile) {
  sim::for_each_seed(12, [](uint64_t seed) {
    TestImage image;
    image.is_encrypted = true;
    image.cluster_bits = seed % 2 == 0 ? 9 : 12;  // of several clusters, and of one
    HolesOptions options;
    options.size = ByteCount(100 << 10);  // so that one refcount block counts all of it
    options.snapshots = false;
    CompactStage stage(image, seed, options, sim::SimDiskOptions::file());
    put_header_last(stage.disk);
    stage.expect_sound();
    const uint64_t end = stage.file_clusters();
    const Result<CompactReport> done = stage.compact(small_limits(seed));
    ASSERT_TRUE(done.ok()) << stage.world.diagnostics().describe(done.error());
    ASSERT_EQ(done.value().obstacles.size(), 1u);
    EXPECT_NE(done.value().obstacles[0].find("encryption header"), std::string::npos);
    EXPECT_EQ(stage.file_clusters(), end);
    stage.expect_sound();
    stage.expect_writable(seed + 1);
  });
}

// A header whose clusters count as free is a hole that must not be filled.
TEST(CompactEncryptedTest, AHeaderThatIsNotCountedStopsIt) {
  TestImage image;
  image.is_encrypted = true;
  CompactStage stage(image, 3, HolesOptions(), sim::SimDiskOptions::file());
  std::vector<std::byte> before(kToyHeaderBytes);
  const uint64_t header_at = 4 << image.cluster_bits;
  stage.disk.peek(header_at, before);
  ASSERT_TRUE(before == toy_header());
  set_refcount_on(stage.disk, Geometry(12, 4, false), 4, 0);
  const Result<CompactReport> done = stage.compact(CompactLimits());
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().kind, ErrorKind::kCorrupt);
  std::vector<std::byte> after(kToyHeaderBytes);
  stage.disk.peek(header_at, after);
  EXPECT_TRUE(before == after);
}

// What it shows would be noise at any other place.
TEST(CompactEncryptedTest, AFileThatWasCutShortStopsIt) {
  TestImage image;
  image.is_encrypted = true;
  CompactStage stage(image, 3, HolesOptions(), sim::SimDiskOptions::file());
  const uint64_t l1_at = 3 << image.cluster_bits;
  const uint64_t l2_at = word_on(stage.disk, l1_at) & kOffsetMask;
  uint64_t at = l2_at;
  while ((word_on(stage.disk, at) & kOffsetMask) == 0 || (word_on(stage.disk, at) & kReadsZero)) {
    at += kEntryBytes;
  }
  const uint64_t before = word_on(stage.disk, at);
  const uint64_t size = stage.disk.size();
  put_entry_on(stage.disk, at, kCopied | size);
  const Result<CompactReport> done = stage.compact(CompactLimits());
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().kind, ErrorKind::kCorrupt);
  EXPECT_EQ(stage.disk.size(), size);
  put_entry_on(stage.disk, at, before);
  stage.image.leaks_allowed = true;
  stage.expect_sound();
}

// --- crashes and faults

TEST(CompactEncryptedCrashTest, ACrashAnywhereLeaksAtWorst) {
  sim::for_each_seed(12, [](uint64_t seed) {
    TestImage image = drawn_encrypted_image(seed);
    HolesOptions options;
    options.snapshots = seed % 3 != 0;
    if (seed % 4 == 1) image.backing_bytes = 300 << 10;
    options.bitmaps = image.version >= 3 && seed % 2 == 1;
    CompactCrash scenario(image, options, seed);
    sim::CrashSweepOptions sweep;
    sweep.points = 40;
    if (seed % 5 == 0) {
      sweep.disks = {sim::SimDiskOptions::block_device(ByteCount(8 << 20), 512)};
    }
    EXPECT_GT(run_crash_sweep(scenario, seed, sweep), 0u);
  });
}

TEST(CompactEncryptedFaultTest, EveryFailureIsToldAndLosesNothing) {
  sim::for_each_seed(3, [](uint64_t seed) {
    TestImage image = drawn_edited_image(seed);
    image.is_encrypted = true;
    image.cluster_bits = 11 + seed % 3;
    HolesOptions options;
    options.bitmaps = image.version >= 3;
    auto run = [&](uint64_t n) { return run_compaction_with_fault(image, options, seed, n); };
    EXPECT_GT(sim::sweep_faults(5000, run), 10u);
  });
}

}  // namespace
}  // namespace ringdisk::qcow2
