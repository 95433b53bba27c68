// SPDX-License-Identifier: Apache-2.0
// raw as a format, through the whole block layer: where its bytes are, how large it is, and what a
// probed disk may become.
#include "nodes/raw.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "base/random.h"
#include "block/device_queue.h"
#include "nodes/delay.h"
#include "nodes/format_magic.h"
#include "nodes/mem.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using sim::SimWorld;
using std::string_view_literals::operator""sv;

// A world with `mem` contents that are opened by the driver name "mem".
struct RawWorld {
  explicit RawWorld(uint64_t size, uint32_t block_size = 1, uint64_t seed = sim::seed_or(1),
                    uint32_t shard_count = 1)
      : world(seed, shard_count),
        content(std::make_shared<MemContent>(ByteCount(size))),
        gate(world.diagnostics()),
        graph(world.world(), drivers, gate) {
    StorageDriver mem;
    mem.name = "mem";
    mem.open = [this, block_size](const World&, Options, OpenMode mode) {
      MemOptions options;
      options.block_size = block_size;
      options.read_only = mode.read_only;
      return open_mem(options);
    };
    drivers.storages.push_back(mem);
    drivers.formats.push_back(raw_driver());
  }

  Task<std::unique_ptr<StorageNode>> open_mem(MemOptions options) {
    std::unique_ptr<StorageNode> node =
        std::make_unique<MemNode>("mem", world.diagnostics().add_node("mem"), content, options);
    if (slow) {
      DelayPlan plan;
      plan.seed = world.seed();
      node = std::make_unique<DelayNode>(std::make_unique<SharedStorage>(std::move(node)), plan);
    }
    co_return std::move(node);
  }
  Task<std::shared_ptr<DeviceNode>> open(std::string text, bool read_only = false) {
    ImageName name;
    name.options = co_await Options::parse(text, world.diagnostics());
    OpenMode mode;
    mode.read_only = read_only;
    co_return co_await graph.open(name, mode).result();
  }

  SimWorld world;
  bool slow = false;  // every operation of the storage takes a drawn time
  std::shared_ptr<MemContent> content;
  Drivers drivers;
  OpenGate gate;
  Graph graph;
};

Result<uint64_t> size_of(RawWorld& raw, std::string text, bool read_only = false) {
  auto body = [&raw, &text, read_only](Shard&) { return raw.open(text, read_only); };
  Result<std::shared_ptr<DeviceNode>> node = raw.world.run(body);
  if (!node.ok()) return node.error();
  uint64_t size = node.value()->size().value();
  std::shared_ptr<DeviceNode> device = node.value();
  auto close = [&device](Shard&) { return device->close(); };
  EXPECT_TRUE(raw.world.run(close).ok());
  return size;
}

TEST(RawTest, TheLastSectorCountsAsWhole) {
  RawWorld odd(1000);
  EXPECT_EQ(size_of(odd, "driver=raw,file.driver=mem").value(), 1024u);
  EXPECT_EQ(size_of(odd, "driver=raw,file.driver=mem", true).value(), 1024u);
  EXPECT_EQ(size_of(odd, "driver=raw,offset=488,file.driver=mem").value(), 512u);
  EXPECT_EQ(size_of(odd, "driver=raw,size=1000,file.driver=mem").value(), 1000u);
  RawWorld empty(0);
  EXPECT_EQ(size_of(empty, "driver=raw,file.driver=mem").value(), 0u);
}

TEST(RawTest, AWindowBeyondTheEndIsRefused) {
  RawWorld raw(65536);
  for (const char* text :
       {"driver=raw,offset=64K,size=1,file.driver=mem", "driver=raw,offset=65537,file.driver=mem",
        "driver=raw,offset=4K,size=8E,file.driver=mem"}) {
    Result<uint64_t> size = size_of(raw, text);
    ASSERT_FALSE(size.ok()) << text;
    EXPECT_EQ(size.error().kind, ErrorKind::kInvalid) << text;
  }
}

Task<void> use_window(RawWorld& raw, Shard& shard) {
  std::shared_ptr<DeviceNode> node =
      co_await raw.open("driver=raw,offset=1000,size=3000,file.driver=mem");
  std::unique_ptr<DeviceQueue> queue = co_await node->open_queue(shard);
  std::vector<std::byte> bytes(3000, std::byte{0x77}), read(3000);
  co_await queue->write(GuestOffset(0), ConstBuffers(Bytes(bytes)), WriteOptions());
  GuestRange middle(GuestOffset(100), ByteCount(50));
  co_await queue->write_zeroes(middle, ZeroOptions());
  std::fill_n(bytes.begin() + 100, 50, std::byte{0});
  co_await queue->read(GuestOffset(0), MutableBuffers(MutableBytes(read)));
  EXPECT_EQ(read, bytes);
  Result<void> beyond =
      co_await queue->write(GuestOffset(2999), ConstBuffers(Bytes(bytes).first(2)), WriteOptions())
          .result();
  EXPECT_FALSE(beyond.ok());
  co_await queue->flush();
  queue.reset();
  co_await node->close();
}

TEST(RawTest, AWindowMovesEveryByteByItsOffset) {
  for (uint32_t block_size : {1u, 512u, 4096u}) {
    RawWorld raw(65536, block_size);
    auto body = [&raw](Shard& shard) { return use_window(raw, shard); };
    ASSERT_TRUE(raw.world.run(body).ok());
    std::vector<std::byte> host(65536), expected(65536);
    raw.content->memory().read(HostOffset(0), host);
    std::fill_n(expected.begin() + 1000, 3000, std::byte{0x77});
    std::fill_n(expected.begin() + 1100, 50, std::byte{0});
    EXPECT_EQ(host, expected) << "block size " << block_size;
  }
}

Task<void> read_odd_end(RawWorld& raw, Shard& shard) {
  std::shared_ptr<DeviceNode> node = co_await raw.open("driver=raw,file.driver=mem", true);
  std::unique_ptr<DeviceQueue> queue = co_await node->open_queue(shard);
  std::vector<std::byte> read(1024, std::byte{0xee});
  co_await queue->read(GuestOffset(0), MutableBuffers(MutableBytes(read)));
  EXPECT_EQ(read[999], std::byte{5});
  EXPECT_TRUE(std::all_of(read.begin() + 1000, read.end(),
                          [](std::byte byte) { return byte == std::byte{0}; }));
  queue.reset();
  co_await node->close();
}

TEST(RawTest, BehindAnOddEndThereAreZeros) {
  RawWorld raw(1000);
  std::vector<std::byte> bytes(1000, std::byte{5});
  raw.content->memory().write(HostOffset(0), bytes);
  auto body = [&raw](Shard& shard) { return read_odd_end(raw, shard); };
  EXPECT_TRUE(raw.world.run(body).ok());
}

// --- a probed disk
// --------------------------------------------------------------------------------

constexpr const char* kProbed = "file.driver=mem";  // nobody says raw
constexpr const char* kNamed = "driver=raw,file.driver=mem";

// Writes `pieces` (offset, text) one after another; the first error.
struct Piece {
  uint64_t offset;
  std::string_view text;
};
Task<void> write_pieces(RawWorld& raw, const char* image, Shard& shard, std::vector<Piece> pieces) {
  std::shared_ptr<DeviceNode> node = co_await raw.open(image);
  std::unique_ptr<DeviceQueue> queue = co_await node->open_queue(shard);
  Result<void> outcome;
  for (const Piece& piece : pieces) {
    if (!outcome.ok()) break;
    outcome =
        co_await queue
            ->write(GuestOffset(piece.offset), ConstBuffers(as_bytes(piece.text)), WriteOptions())
            .result();
  }
  queue.reset();
  co_await node->close();
  co_await std::move(outcome);
}

Result<void> write_to(RawWorld& raw, const char* image, std::vector<Piece> pieces) {
  auto body = [&](Shard& shard) { return write_pieces(raw, image, shard, pieces); };
  return raw.world.run(body);
}

TEST(ProbedRawTest, AHeaderOfAnotherFormatIsRefusedWithTheWayOut) {
  for (uint32_t block_size : {1u, 16u, 512u, 4096u}) {
    RawWorld raw(65536, block_size);
    Result<void> written = write_to(raw, kProbed, {{0, "QFI\xfb\0\0\0\3"sv}});
    ASSERT_FALSE(written.ok()) << "block size " << block_size;
    EXPECT_EQ(written.error().kind, ErrorKind::kDenied);
    std::string text = raw.world.diagnostics().describe(written.error());
    EXPECT_NE(text.find("qcow2"), std::string::npos) << text;
    EXPECT_NE(text.find("-f raw"), std::string::npos) << text;
    std::vector<std::byte> first(4);
    raw.content->memory().read(HostOffset(0), first);
    EXPECT_EQ(first, std::vector<std::byte>(4)) << "nothing of it was written";
  }
}

TEST(ProbedRawTest, AHeaderWrittenPieceByPieceIsRefusedToo) {
  RawWorld raw(65536);
  EXPECT_FALSE(write_to(raw, kProbed, {{2, "I\xfb"sv}, {1, "F"sv}, {0, "Q"sv}}).ok());
  RawWorld small(3);  // shorter than a sector
  EXPECT_FALSE(write_to(small, kProbed, {{0, "LUK"sv}, {3, "S\xba\xbe"sv}}).ok());
}

TEST(ProbedRawTest, EverythingElseMayBeWritten) {
  RawWorld raw(65536);
  EXPECT_TRUE(write_to(raw, kProbed,
                       {{0, "\xeb\x63\x90 a boot sector"sv},
                        {512, "QFI\xfb"sv},
                        {1, "QFI\xfb"sv},
                        {508, "QFI\xfb"sv}})
                  .ok());
}

TEST(ProbedRawTest, ADiskThatWasCalledRawMayBecomeAnything) {
  RawWorld raw(65536);
  EXPECT_TRUE(write_to(raw, kNamed, {{0, "QFI\xfb"sv}}).ok());
}

Task<void> zero_byte_three(RawWorld& raw, Shard& shard) {
  std::shared_ptr<DeviceNode> node = co_await raw.open(kProbed);
  std::unique_ptr<DeviceQueue> queue = co_await node->open_queue(shard);
  GuestRange range(GuestOffset(3), ByteCount(1));
  Result<void> zeroed = co_await queue->write_zeroes(range, ZeroOptions()).result();
  Result<void> discarded = co_await queue->discard(range).result();
  EXPECT_TRUE(discarded.ok());
  GuestRange sector(GuestOffset(0), ByteCount(512));
  Result<void> whole = co_await queue->write_zeroes(sector, ZeroOptions()).result();
  EXPECT_TRUE(whole.ok());
  queue.reset();
  co_await node->close();
  co_await std::move(zeroed);
}

TEST(ProbedRawTest, ZeroingAByteDoesNotMakeAHeaderEither) {
  RawWorld raw(65536);
  raw.content->memory().write(HostOffset(0), as_bytes("QEDx"));
  auto body = [&raw](Shard& shard) { return zero_byte_three(raw, shard); };
  Result<void> zeroed = raw.world.run(body);
  ASSERT_FALSE(zeroed.ok());
  EXPECT_EQ(zeroed.error().kind, ErrorKind::kDenied);
}

// Two shards write half a header each. Whatever the order, at most one half may
// stay.
Task<void> write_half(DeviceNode& node, Shard& shard) {
  std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(shard);
  std::string_view half = shard.index() == 0 ? "QF"sv : "I\xfb"sv;
  GuestOffset at(shard.index() == 0 ? 0 : 2);
  Result<void> written =
      co_await queue->write(at, ConstBuffers(as_bytes(half)), WriteOptions()).result();
  if (!written.ok()) {
    EXPECT_EQ(written.error().kind, ErrorKind::kDenied);
  }
}

TEST(ProbedRawTest, HalvesOfAHeaderFromTwoShardsNeverMeet) {
  sim::for_each_seed(100, [](uint64_t seed) {
    RawWorld raw(65536, 1, seed, 2);
    raw.slow = true;
    auto open = [&raw](Shard&) { return raw.open(kProbed); };
    Result<std::shared_ptr<DeviceNode>> node = raw.world.run(open);
    ASSERT_TRUE(node.ok());
    std::shared_ptr<DeviceNode> device = node.value();
    auto body = [&device](Shard& shard) { return write_half(*device, shard); };
    ASSERT_TRUE(raw.world.run_on_all(body).ok());
    std::vector<std::byte> first(512);
    raw.content->memory().read(HostOffset(0), first);
    EXPECT_EQ(announced_format(first), "");
    EXPECT_TRUE(std::any_of(first.begin(), first.end(),
                            [](std::byte byte) { return byte != std::byte{0}; }));
    auto close = [&device](Shard&) { return device->close(); };
    ASSERT_TRUE(raw.world.run(close).ok());
  });
}

TEST(FormatMagicTest, KnowsTheFormatsAndNothingElse) {
  EXPECT_EQ(announced_format(as_bytes("QFI\xfb")), "qcow2");
  EXPECT_EQ(announced_format(as_bytes("QFI")), "");
  EXPECT_EQ(announced_format(as_bytes("")), "");
  EXPECT_EQ(announced_format(as_bytes("LUKS\xba\xbe\0\2"sv)), "luks");
  EXPECT_EQ(announced_format(as_bytes("# a comment\n\n#another\nversion=1\n")), "vmdk");
  EXPECT_EQ(announced_format(as_bytes("# a comment\nversions\n")), "");
  EXPECT_EQ(announced_format(as_bytes("\n\n\n")), "");
  std::string vdi(512, 'x');
  vdi.replace(64, 4, "\x7f\x10\xda\xbe");
  EXPECT_EQ(announced_format(as_bytes(vdi)), "vdi");
}

}  // namespace
}  // namespace ringdisk
