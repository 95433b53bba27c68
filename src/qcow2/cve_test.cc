// SPDX-License-Identifier: Apache-2.0
// Images made after the public descriptions of vulnerabilities in other programs' qcow2 drivers,
// and their like, taken through everything that reads an image: opened for reading and for writing,
// used, described, checked, its snapshots read and deleted. Each ends with an error of one line
// that names the image, or is used as far as it is right; never with more memory than a table may
// have, and with no change of the disk where the open was refused.
//
// (CVE-2014-0142 and CVE-2014-0148 are about formats that are not here: parallels, bochs, vhdx.)
#include <gtest/gtest.h>

#include <functional>

#include "qcow2/describe.h"
#include "qcow2/edit/snapshots.h"
#include "qcow2/image_stage_test.h"

namespace ringdisk::qcow2 {
namespace {

constexpr ByteCount kSize(4 << 20);
constexpr uint64_t kCluster = 4096;

// Where the fields of a header are, by the specification.
constexpr uint64_t kBackingOffset = 8, kBackingLength = 16, kClusterBits = 20, kDiskSize = 24;
constexpr uint64_t kL1Size = 36, kL1Offset = 40, kRefcountTableOffset = 48;
constexpr uint64_t kRefcountTableClusters = 56, kSnapshotCount = 60, kSnapshotOffset = 64;
constexpr uint64_t kRefcountOrder = 96, kHeaderLength = 100, kFirstExtension = 112;

// Header, refcount table, refcount block, L1 table, one cluster each; what tests add comes behind.
constexpr uint64_t kRefcountTableAt = kCluster, kRefcountBlockAt = 2 * kCluster;
constexpr uint64_t kL1At = 3 * kCluster, kTableAt = 4 * kCluster, kDataAt = 5 * kCluster;

class CveTest : public ::testing::Test {
 protected:
  CveTest() : stage_(TestImage(), kSize, sim::SimDiskOptions::file()) {
    stage_.world.diagnostics().add_node("disk.qcow2");  // the storage's id, if it is the first
    stage_.disk.poke(kTableAt, std::vector<std::byte>(2 * kCluster));
  }

  void put32(uint64_t at, uint32_t value) {
    std::byte bytes[4];
    store_be32(bytes, value);
    stage_.disk.poke(at, bytes);
  }
  void put64(uint64_t at, uint64_t value) { stage_.put64(at, value); }
  // An L2 table for the first 2 MiB whose first entry is `entry`, both counted.
  void add_table(uint64_t entry) {
    put64(kL1At, kCopied | kTableAt);
    put64(kTableAt, entry);
    put32(kRefcountBlockAt + 4 * 2, 0x0001'0001);
  }
  // A snapshot table of one entry at kDataAt.
  void add_snapshot(uint64_t l1_table, uint32_t l1_size, uint32_t extra) {
    put32(kSnapshotCount, 1);
    put64(kSnapshotOffset, kDataAt);
    put64(kDataAt, l1_table);
    put32(kDataAt + 8, l1_size);
    put32(kDataAt + 12, 0x0001'0001);  // an id and a name of one byte
    put32(kDataAt + 36, extra);
    put64(kDataAt + 40, 0x3131'0000'0000'0000);
    put32(kRefcountBlockAt + 5 * 2, 0x0001'0000);
  }

  static Task<void> nothing(DeviceQueue&) { co_return; }
  static Task<void> write_first(DeviceQueue& queue) { return write_stamped(queue, 0, 512, 7); }
  static Task<void> read_all(DeviceQueue& queue) {
    std::vector<std::byte> bytes(kSize.value());
    co_await queue.read(GuestOffset(0), MutableBuffers(MutableBytes(bytes)));
  }
  static Task<void> discard_all(DeviceQueue& queue) {
    co_await queue.discard(GuestRange(GuestOffset(0), kSize));
    co_await queue.flush();
  }

  // The error's line, after a look at its form; "" where there is none.
  std::string line_of(const Result<void>& result) {
    const std::string text = stage_.text_of(result);
    if (result.ok()) return text;
    EXPECT_TRUE(text.starts_with("disk.qcow2: ")) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_LT(text.size(), 400u);
    return text;
  }
  std::string use(ImageStage::Use body, bool read_only) {
    return line_of(stage_.use(std::move(body), read_only));
  }

  Result<void> describe() {
    auto body = [this](Shard&) { return describe_it(); };
    return stage_.world.run(body);
  }
  // What the check finds, all kinds together; an error counts as a finding.
  uint64_t faults_found() {
    auto body = [this](Shard&) { return count_faults(); };
    Result<uint64_t> found = stage_.world.run(body);
    EXPECT_TRUE(found.ok());
    return found.ok() ? found.value() : 0;
  }
  Result<void> edit_snapshot(SnapshotEdit::Action action) {
    auto body = [this, action](Shard&) { return edit_it(action); };
    return stage_.world.run(body);
  }

  // Refused by all, and nothing is written.
  void expect_refused(std::string_view why) {
    sim::SimFaults writes;
    writes.only = sim::SimOperation::kWrite;
    stage_.disk.set_faults(&writes);
    for (bool read_only : {true, false}) {
      const std::string line = use(&nothing, read_only);
      EXPECT_NE(line.find(why), std::string::npos) << why << ": " << line;
    }
    line_of(describe());  // it looks at the header alone, which may be right by itself
    EXPECT_NE(faults_found(), 0u) << why;
    EXPECT_NE(line_of(edit_snapshot(SnapshotEdit::Action::kCreate)), "") << why;
    EXPECT_EQ(writes.requests, 0u) << why;
    stage_.disk.set_faults(&stage_.faults);
  }

  ImageStage stage_;

 private:
  Task<void> describe_it() {
    std::unique_ptr<SharedStorage> storage = stage_.storage();
    Result<ImageDescription> described =
        co_await describe_image(stage_.world.world(), *storage).result();
    co_await storage->node->close();
    if (!described.ok()) co_await fail(described.error());
  }
  Task<uint64_t> count_faults() {
    std::unique_ptr<SharedStorage> storage = stage_.storage();
    const std::function<void(CheckProgress)> no_progress;
    Result<std::optional<CheckReport>> checked =
        co_await check_image(stage_.world.world(), *storage, no_progress).result();
    co_await storage->node->close();
    if (!checked.ok()) co_return uint64_t{1};
    const CheckReport& report = *checked.value();
    co_return report.corruptions + report.leaks + report.check_errors;
  }
  Task<void> edit_it(SnapshotEdit::Action action) {
    const Drivers drivers;
    const OpenGate gate(stage_.world.diagnostics());
    Graph graph(stage_.world.world(), drivers, gate);
    SnapshotEdit edit;
    edit.action = action;
    edit.name = "1";
    co_await edit_snapshots(graph, stage_.storage(), edit);
  }
};

// --- headers

TEST_F(CveTest, Cve20140144HeaderLengthBeyondItsCluster) {
  for (uint32_t length : {0u, 103u, 0x1001u, 0x7fff'fff8u, 0xffff'ffffu, 0xffff'fff8u}) {
    put32(kHeaderLength, length);
    expect_refused("a header of");
  }
}

TEST_F(CveTest, Cve20140144BackingNameBeyondTheHeader) {
  for (uint64_t offset : {uint64_t{8}, kCluster, uint64_t{1} << 63, ~uint64_t{0}}) {
    put64(kBackingOffset, offset);
    put32(kBackingLength, 8);
    expect_refused("backing file lies outside");
  }
  put64(kBackingOffset, 1024);
  for (uint32_t length : {1024u, 0x7fff'ffffu, 0xffff'ffffu}) {
    put32(kBackingLength, length);
    expect_refused("backing file lies outside");
  }
}

TEST_F(CveTest, Cve20140144ExtensionBeyondTheHeader) {
  put32(kHeaderLength, 112);
  put32(kFirstExtension, 0x1234'5678);
  for (uint32_t length : {0x1000u, 0x7fff'ffffu, 0xffff'fff9u, 0xffff'ffffu}) {
    put32(kFirstExtension + 4, length);
    expect_refused("header extension that goes beyond");
  }
}

TEST_F(CveTest, Cve20140143ClusterSizesThatShiftTooFar) {
  for (uint32_t bits : {0u, 8u, 22u, 31u, 64u, 0xffff'ffffu}) {
    put32(kClusterBits, bits);
    expect_refused("a cluster size of 2^");
  }
}

TEST_F(CveTest, Cve20140143RefcountWidthsThatShiftTooFar) {
  for (uint32_t order : {7u, 31u, 0xffff'ffffu}) {
    put32(kRefcountOrder, order);
    expect_refused("a refcount width of 2^");
  }
}

TEST_F(CveTest, Cve20140144RefcountTableOfAbsurdSizeOrPlace) {
  for (uint32_t clusters : {2049u, 0x7fff'ffffu, 0xffff'ffffu}) {
    put32(kRefcountTableClusters, clusters);
    expect_refused("a refcount table of");
  }
  put32(kRefcountTableClusters, 1);
  for (uint64_t offset : {uint64_t{0}, kL1At, uint64_t{1} << 62, ~uint64_t{0} - 4095}) {
    put64(kRefcountTableOffset, offset);
    expect_refused("refcount table");
  }
  put64(kRefcountTableOffset, kRefcountTableAt + 1);
  expect_refused("not the start of a cluster");
}

TEST_F(CveTest, Cve20140144ActiveL1TableOfAbsurdSizeOrPlace) {
  for (uint32_t entries : {0x40'0001u, 0x1fff'ffffu, 0x2000'0001u, 0xffff'ffffu}) {
    put32(kL1Size, entries);
    expect_refused("an L1 table of");
  }
  for (uint32_t entries : {0u, 1u}) {
    put32(kL1Size, entries);
    expect_refused("too small for a virtual size");
  }
  put32(kL1Size, 2);
  for (uint64_t offset : {uint64_t{0}, kRefcountTableAt, uint64_t{1} << 62}) {
    put64(kL1Offset, offset);
    expect_refused("L1 table");
  }
  put64(kL1Offset, kL1At + 8);
  expect_refused("not the start of a cluster");
}

// As CVE-2014-0223 has it for qcow: sizes whose tables overflow.
TEST_F(CveTest, Cve20140223DiskSizesThatOverflow) {
  for (uint64_t size : {~uint64_t{0}, uint64_t{1} << 63, (uint64_t{1} << 63) - 512}) {
    put64(kDiskSize, size);
    expect_refused("a virtual size of");
  }
  put64(kDiskSize, uint64_t{1} << 56);
  expect_refused("too small for a virtual size");
}

// --- snapshot tables

TEST_F(CveTest, Cve20140144SnapshotTableOfAbsurdLength) {
  put64(kSnapshotOffset, kDataAt);
  for (uint32_t count : {65537u, 0x1000'0000u, 0xffff'ffffu}) {
    put32(kSnapshotCount, count);
    expect_refused("snapshots");
  }
}

TEST_F(CveTest, Cve20140146SnapshotTableThatCannotBeRead) {
  put32(kSnapshotCount, 5);
  for (uint64_t offset : {uint64_t{0}, kL1At, uint64_t{1} << 62}) {
    put64(kSnapshotOffset, offset);
    expect_refused("snapshot table");
  }
  // More entries than the file has bytes for: the disk itself is right, its list of snapshots not.
  put32(kSnapshotCount, 65536);
  put64(kSnapshotOffset, kDataAt);
  EXPECT_EQ(use(&read_all, true), "");
  EXPECT_NE(line_of(describe()), "");
  EXPECT_NE(line_of(edit_snapshot(SnapshotEdit::Action::kCreate)), "");
  EXPECT_NE(faults_found(), 0u);
}

// It is not followed, whoever asks: what it names stays as it is when the snapshot is deleted, too.
TEST_F(CveTest, Cve20140145SnapshotWithAnL1TableOfAbsurdSizeOrPlace) {
  struct Case {
    uint64_t at;
    uint32_t entries;
  };
  for (Case wrong : {Case{kL1At, 0x40'0001}, Case{kL1At, 0x2000'0001}, Case{kL1At, 0xffff'ffff},
                     Case{kL1At + 8, 2}, Case{uint64_t{1} << 62, 2}, Case{~uint64_t{4095}, 2}}) {
    add_snapshot(wrong.at, wrong.entries, 0);
    EXPECT_NE(faults_found(), 0u) << wrong.entries;
    EXPECT_NE(line_of(edit_snapshot(SnapshotEdit::Action::kApply)), "") << wrong.entries;
    put64(kIncompatibleFeaturesAt, 0);
    EXPECT_EQ(use(&read_all, true), "") << "the disk itself is right";
    EXPECT_EQ(line_of(edit_snapshot(SnapshotEdit::Action::kDelete)), "") << wrong.entries;
    EXPECT_EQ(faults_found(), 0u) << wrong.entries;
    EXPECT_EQ(use(&read_all, true), "") << "the disk itself is right";
  }
}

TEST_F(CveTest, Cve20140145SnapshotWithExtraBytesBeyondAllBounds) {
  for (uint32_t extra : {uint32_t{kCluster}, 0x7fff'ffffu, 0xffff'ffffu}) {
    add_snapshot(kL1At, 2, extra);
    EXPECT_NE(line_of(describe()), "");
    EXPECT_NE(line_of(edit_snapshot(SnapshotEdit::Action::kDelete)), "");
    EXPECT_EQ(use(&read_all, true), "");
  }
}

// --- refcounts

// A block whose clusters are to be counted in itself, at the place of the header, or in a table.
TEST_F(CveTest, Cve20140147RefcountBlockOnAnotherTable) {
  for (uint64_t place : {kRefcountTableAt, kL1At}) {
    put64(kRefcountTableAt, place);
    EXPECT_NE(use(&write_first, false).find("a refcount block at byte"), std::string::npos);
    EXPECT_EQ(use(&read_all, true), "");
    EXPECT_NE(faults_found(), 0u);
  }
}

TEST_F(CveTest, Cve20140147RefcountBlockAtOffset0) {
  put64(kRefcountTableAt, 0);  // no block: the header's cluster looks free
  EXPECT_NE(use(&write_first, false), "");
  EXPECT_EQ(stage_.get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
  EXPECT_EQ(stage_.get64(0) >> 32, uint64_t{kMagic});
  EXPECT_EQ(use(&read_all, true), "");
}

TEST_F(CveTest, Cve20140147RefcountBlockThatIsNotAligned) {
  put64(kRefcountTableAt, kRefcountBlockAt + 512);
  EXPECT_NE(use(&write_first, false), "");
  EXPECT_EQ(use(&read_all, true), "");
  EXPECT_NE(faults_found(), 0u);
}

// Entries whose refcount would lie far behind the refcount table.
TEST_F(CveTest, Cve20140143ClusterBeyondAllRefcounts) {
  for (uint64_t host : {uint64_t{1} << 40, kOffsetMask & ~(kCluster - 1)}) {
    add_table(kCopied | host);
    put64(kIncompatibleFeaturesAt, 0);
    EXPECT_EQ(use(&discard_all, false), "");  // freed later, where it is found
    EXPECT_EQ(stage_.get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt) << host;
    put64(kIncompatibleFeaturesAt, 0);
    add_table(kCopied | host);
    EXPECT_NE(faults_found(), 0u);
  }
}

// --- tables that lead to themselves

TEST_F(CveTest, TablesThatAreTheirOwnContent) {
  put32(kRefcountBlockAt + 4 * 2, 0x0001'0001);
  for (uint64_t table : {kL1At, kRefcountTableAt, kRefcountBlockAt}) {
    put64(kL1At, kCopied | table);
    EXPECT_NE(use(&write_first, false).find("an L2 table at byte"), std::string::npos);
    const std::string read = use(&read_all, true);  // an error or not, but no more than that
    EXPECT_LT(read.size(), 400u);
    EXPECT_NE(faults_found(), 0u);
  }
  add_table(kCopied | kTableAt);  // an L2 table whose data is itself
  EXPECT_NE(use(&write_first, false), "");
  EXPECT_EQ(stage_.get64(kIncompatibleFeaturesAt), kIncompatibleCorrupt);
  EXPECT_EQ(stage_.get64(kTableAt), kCopied | kTableAt);
}

TEST_F(CveTest, OneTableForAllOfTheDisk) {
  add_table(kCopied | kDataAt);
  put64(kL1At + 8, kCopied | kTableAt);
  EXPECT_NE(use(&write_first, false).find("an L2 table at byte"), std::string::npos);
  EXPECT_EQ(use(&read_all, true), "");
  EXPECT_NE(faults_found(), 0u);
}

// --- compressed clusters

// A stream that would fill memory: ten clusters' worth of zeros in some bytes.
TEST_F(CveTest, ADecompressionBombGivesNoMoreThanACluster) {
  // Deflate with fixed codes: one zero, then matches of length 258 at distance 1.
  std::vector<std::byte> bomb;
  uint64_t bits = 0;
  uint32_t count = 0;
  auto put = [&](uint32_t value, uint32_t width) {
    bits |= uint64_t{value} << count;
    for (count += width; count >= 8; count -= 8, bits >>= 8) {
      bomb.push_back(static_cast<std::byte>(bits & 0xff));
    }
  };
  put(0b011, 3);       // last block, fixed codes
  put(0b00001100, 8);  // literal 0: 00110000, most significant bit first
  for (int i = 0; i < 160; ++i) {
    put(0b10100011, 8);  // length 258: 11000101
    put(0, 5);           // distance 1
  }
  put(0, 7 + 8);  // end of block, and padding
  add_table(kCompressed | kDataAt);
  stage_.disk.poke(kDataAt, bomb);
  const std::string line = use(&read_all, true);
  const bool is_error = line.find("cannot be decompressed") != std::string::npos;
  EXPECT_TRUE(is_error || line.empty()) << line;
  auto expect_a_cluster_of_zeros = [](DeviceQueue& queue) {
    return expect_stamped(queue, 0, kCluster, 0);
  };
  if (!is_error) {
    EXPECT_EQ(use(expect_a_cluster_of_zeros, true), "");
  }
}

TEST_F(CveTest, CompressedStreamsBeyondTheEndOfTheFile) {
  const uint64_t most_sectors = uint64_t{7} << (62 - (12 - 8));
  for (uint64_t at : {uint64_t{1} << 40, kDataAt + kCluster - 512, kDataAt}) {
    add_table(kCompressed | most_sectors | at);
    EXPECT_LT(use(&read_all, true).size(), 400u);
    put64(kIncompatibleFeaturesAt, 0);
    EXPECT_LT(use(&discard_all, false).size(), 400u);
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
