// SPDX-License-Identifier: Apache-2.0
// The clauses of the storage contract. Each is a task on shard 0; several use all shards of the
// world.
#include "sim/storage_contract.h"

#include <gtest/gtest.h>

#include "async/scope.h"
#include "runtime/shard.h"
#include "sim/model_disk.h"
#include "sim/registered_test.h"
#include "sim/scattered_buffer.h"
#include "sim/sim_world.h"

namespace ringdisk::sim {
namespace {

constexpr uint64_t kStorageBytes = 1 << 20;
constexpr uint64_t kSeeds = 3;

// What a clause works with. Writes of several shards never touch the same bytes.
struct Run {
  const World& world;
  SharedStorage& storage;
  uint64_t seed;
  Random random;
};

HostRange range_of(uint64_t offset, uint64_t length) {
  return {HostOffset(offset), ByteCount(length)};
}

std::vector<std::byte> stamped(uint64_t offset, uint64_t length, uint64_t generation) {
  std::vector<std::byte> bytes(length);
  fill_stamped(bytes, offset, generation, 0);
  return bytes;
}

Task<void> write(Run& run, StorageAccess& access, uint64_t offset, uint64_t length,
                 uint64_t generation, bool fua = false) {
  std::vector<std::byte> bytes = stamped(offset, length, generation);
  ScatteredBuffer source(bytes, 1, run.random);
  ConstBuffers buffers = source.readable();
  WriteOptions options;
  options.fua = fua;
  co_await access.write(HostOffset(offset), buffers, options);
}

Task<void> expect(Run& run, StorageAccess& access, uint64_t offset, Bytes right) {
  std::vector<std::byte> bytes(right.size(), std::byte{0x77});
  ScatteredBuffer target(bytes, 1, run.random);
  MutableBuffers buffers = target.writable();
  co_await access.read(HostOffset(offset), buffers);
  target.gather(bytes);
  auto wrong = std::mismatch(bytes.begin(), bytes.end(), right.begin());
  EXPECT_TRUE(wrong.first == bytes.end())
      << "read of " << right.size() << " at " << offset << ": wrong from byte "
      << (wrong.first - bytes.begin()) << " on";
}
Task<void> expect_stamp(Run& run, StorageAccess& access, uint64_t offset, uint64_t length,
                        uint64_t generation) {
  std::vector<std::byte> right = stamped(offset, length, generation);
  co_await expect(run, access, offset, right);
}
Task<void> expect_zeros(Run& run, StorageAccess& access, uint64_t offset, uint64_t length) {
  std::vector<std::byte> right(length);
  co_await expect(run, access, offset, right);
}

// --- clauses -----------------------------------------------------------------------------------

Task<void> reads_back_what_was_written(Run& run, StorageAccess& access) {
  constexpr uint64_t kOffsets[] = {0, 1, 511, 4096, 65536 + 100, 300'000};
  constexpr uint64_t kLengths[] = {1, 511, 512, 4096, 4097, 300'000};
  uint64_t generation = 0;
  for (uint64_t offset : kOffsets) {
    for (uint64_t length : kLengths) {
      ++generation;
      co_await write(run, access, offset, length, generation);
      co_await expect_stamp(run, access, offset, length, generation);
    }
  }
}

Task<void> leaves_neighbours_alone(Run& run, StorageAccess& access) {
  co_await write(run, access, 0, 100'000, 1);
  co_await write(run, access, 10'001, 3, 2);
  co_await write(run, access, 20'000, 5000, 3);
  co_await expect_stamp(run, access, 0, 10'001, 1);
  co_await expect_stamp(run, access, 10'001, 3, 2);
  co_await expect_stamp(run, access, 10'004, 9996, 1);
  co_await expect_stamp(run, access, 20'000, 5000, 3);
  co_await expect_stamp(run, access, 25'000, 75'000, 1);
}

Task<void> zeroes_read_as_zeros(Run& run, StorageAccess& access) {
  for (bool may_unmap : {false, true}) {
    ZeroOptions options;
    options.may_unmap = may_unmap;
    co_await write(run, access, 0, 300'000, 1);
    co_await access.write_zeroes(range_of(1000, 200'000), options);
    co_await access.write_zeroes(range_of(250'001, 77), options);
    co_await expect_stamp(run, access, 0, 1000, 1);
    co_await expect_zeros(run, access, 1000, 200'000);
    co_await expect_stamp(run, access, 201'000, 49'001, 1);
    co_await expect_zeros(run, access, 250'001, 77);
    co_await expect_stamp(run, access, 250'078, 49'922, 1);
  }
}

Task<void> fast_zeroes_are_zeros_or_refused(Run& run, StorageAccess& access) {
  co_await write(run, access, 0, 131'072, 1);
  ZeroOptions options;
  options.fast_only = true;
  // What is refused changes nothing, the edges of blocks included.
  for (uint64_t edge : {77u, 0u}) {
    const uint64_t length = 65'536 - 2 * edge;
    Result<void> done = co_await access.write_zeroes(range_of(edge, length), options).result();
    if (done.ok()) {
      co_await expect_zeros(run, access, edge, length);
    } else {
      EXPECT_EQ(name_of(done.error().kind), name_of(ErrorKind::kUnsupported));
      co_await expect_stamp(run, access, edge, length, 1);
    }
    if (edge != 0) co_await expect_stamp(run, access, 0, edge, 1);
  }
  co_await expect_stamp(run, access, 65'536, 65'536, 1);
}

Task<void> discards_leave_zeros_or_what_was_there(Run& run, StorageAccess& access) {
  co_await write(run, access, 0, 300'000, 1);
  co_await access.discard(range_of(1000, 200'000));
  std::vector<std::byte> bytes(300'000), old = stamped(0, 300'000, 1);
  co_await access.read(HostOffset(0), MutableBuffers(MutableBytes(bytes)));
  uint64_t strange = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    bool is_inside = i >= 1000 && i < 201'000;
    strange += bytes[i] != old[i] && !(is_inside && bytes[i] == std::byte{0});
  }
  EXPECT_EQ(strange, 0u);
}

Task<void> extents_cover_everything_and_zeros_are_zeros(Run& run, StorageAccess& access) {
  co_await write(run, access, kStorageBytes - 512, 512, 1);
  ZeroOptions zeroes;
  co_await access.write_zeroes(range_of(0, kStorageBytes - 512), zeroes);
  co_await write(run, access, 100'000, 50'000, 2);
  co_await write(run, access, 700'001, 3, 3);
  for (uint64_t at = 0; at < kStorageBytes;) {
    StorageExtent extent = co_await access.find_extent(range_of(at, kStorageBytes - at));
    EXPECT_GT(extent.length.value(), 0u);
    EXPECT_LE(extent.length.value(), kStorageBytes - at);
    if (extent.length.is_zero()) co_return;
    if (extent.zero) co_await expect_zeros(run, access, at, extent.length.value());
    at += extent.length.value();
  }
}

Task<void> grows_or_refuses_beyond_the_end(Run& run, StorageAccess& access) {
  uint64_t end = access.size().value();
  Result<void> done = co_await write(run, access, end + 100'000, 1000, 1).result();
  if (!access.limits().grows) {
    EXPECT_FALSE(done.ok());
    if (!done.ok()) {
      EXPECT_EQ(name_of(done.error().kind), name_of(ErrorKind::kNoSpace));
    }
    EXPECT_EQ(access.size().value(), end);
    co_return;
  }
  co_await std::move(done);
  EXPECT_GE(access.size().value(), end + 101'000);
  co_await expect_stamp(run, access, end + 100'000, 1000, 1);
  if (access.limits().grown_reads_zero) co_await expect_zeros(run, access, end, 100'000);
}

Task<void> reads_zeros_beyond_the_end(Run& run, StorageAccess& access) {
  uint64_t end = access.size().value();
  co_await expect_zeros(run, access, end, 5000);
  co_await expect_zeros(run, access, end + (uint64_t{1} << 40), 5000);
}

Task<void> resize_cuts_and_grows(Run& run, StorageAccess& access) {
  if (!access.limits().grows) co_return;
  co_await write(run, access, 0, 200'000, 1);
  uint64_t cut = 102'400;
  co_await access.resize(ByteCount(cut));
  EXPECT_EQ(access.size().value(), cut);
  co_await expect_stamp(run, access, 0, cut, 1);
  co_await access.resize(ByteCount(204'800));
  EXPECT_EQ(access.size().value(), 204'800u);
  co_await expect_stamp(run, access, 0, cut, 1);
  if (access.limits().grown_reads_zero) co_await expect_zeros(run, access, cut, 102'400);
}

Task<void> allocating_changes_no_byte(Run& run, StorageAccess& access) {
  co_await write(run, access, 4096, 8192, 1);
  Result<void> done = co_await access.allocate(range_of(0, 65'536)).result();
  if (!done.ok()) {
    EXPECT_EQ(name_of(done.error().kind), name_of(ErrorKind::kUnsupported));
  }
  co_await expect_stamp(run, access, 4096, 8192, 1);
}

Task<void> flushes_and_durable_writes_succeed(Run& run, StorageAccess& access) {
  co_await access.flush();
  co_await write(run, access, 1000, 70'000, 1, true);
  co_await access.flush();
  co_await expect_stamp(run, access, 1000, 70'000, 1);
}

// Each task has every fourth run of 100 bytes: they share sectors and blocks.
Task<void> write_share(Run& run, uint64_t which) {
  std::unique_ptr<StorageAccess> access =
      co_await StorageAccess::open(run.storage, Shard::current());
  Random random(mix_seed(run.seed, which));
  for (uint64_t at = which * 100; at + 100 <= 40'000; at += 400) {
    std::vector<std::byte> bytes = stamped(at, 100, 1);
    co_await access->write(HostOffset(at), ConstBuffers(Bytes(bytes)));
    if (random.chance(5)) co_await access->flush();
  }
}
Task<void> queues_of_several_shards_do_not_disturb_each_other(Run& run, StorageAccess& access) {
  co_await write(run, access, 0, 65'536, 9);
  auto one = [&run](size_t which) {
    auto there = [&run, which] { return write_share(run, which); };
    return run.world.shards[which % run.world.shards.size()]->call(there);
  };
  co_await when_all(4, one);
  co_await expect_stamp(run, access, 0, 40'000, 1);
  co_await expect_stamp(run, access, 40'000, 65'536 - 40'000, 9);
}

Task<void> takes_large_requests(Run& run, StorageAccess& access) {
  if (!access.limits().grows) co_return;
  constexpr uint64_t kLarge = 9 << 20;
  co_await write(run, access, 0, kLarge, 1);
  co_await expect_stamp(run, access, 0, kLarge, 1);
}

// --- the frame around them ---------------------------------------------------------------------

struct NamedClause {
  const char* name;
  Task<void> (*clause)(Run&, StorageAccess&);
};

constexpr NamedClause kClauses[] = {
    {"ReadsBackWhatWasWritten", &reads_back_what_was_written},
    {"LeavesNeighboursAlone", &leaves_neighbours_alone},
    {"ZeroesReadAsZeros", &zeroes_read_as_zeros},
    {"FastZeroesAreZerosOrRefused", &fast_zeroes_are_zeros_or_refused},
    {"DiscardsLeaveZerosOrWhatWasThere", &discards_leave_zeros_or_what_was_there},
    {"ExtentsCoverEverythingAndZerosAreZeros", &extents_cover_everything_and_zeros_are_zeros},
    {"GrowsOrRefusesBeyondTheEnd", &grows_or_refuses_beyond_the_end},
    {"ReadsZerosBeyondTheEnd", &reads_zeros_beyond_the_end},
    {"ResizeCutsAndGrows", &resize_cuts_and_grows},
    {"AllocatingChangesNoByte", &allocating_changes_no_byte},
    {"FlushesAndDurableWritesSucceed", &flushes_and_durable_writes_succeed},
    {"QueuesOfSeveralShardsDoNotDisturbEachOther",
     &queues_of_several_shards_do_not_disturb_each_other},
    {"TakesLargeRequests", &takes_large_requests},
};

Task<void> run_clause(const World& world, const OpenNewStorage& open, const NamedClause& clause,
                      uint64_t seed) {
  std::unique_ptr<StorageNode> node = co_await open(world, ByteCount(kStorageBytes));
  SharedStorage storage(std::move(node));
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  Run run{world, storage, seed, Random(seed)};
  Result<void> done = co_await clause.clause(run, *access).result();
  access.reset();
  Result<void> closed = co_await storage.node->close().result();
  co_await std::move(done);
  co_await std::move(closed);
}

}  // namespace

Result<void> run_in_sim_world(uint64_t seed,
                              const std::function<Task<void>(const World& world)>& body) {
  SimWorld world(seed, 3);
  auto root = [&world, &body](Shard&) { return body(world.world()); };
  return world.run(root);
}

bool register_storage_contract(const char* name, OpenNewStorage open, RunInWorld run) {
  for (const NamedClause& clause : kClauses) {
    auto test = [open, run, &clause] {
      for_each_seed(kSeeds, [&](uint64_t seed) {
        auto body = [&](const World& world) { return run_clause(world, open, clause, seed); };
        Result<void> done = run(seed, body);
        EXPECT_TRUE(done.ok()) << done.error().operation << ": " << name_of(done.error().kind)
                               << ", errno " << done.error().errno_value;
      });
    };
    register_test("StorageContract", std::string(clause.name) + "/" + name, test);
  }
  return true;
}

}  // namespace ringdisk::sim
