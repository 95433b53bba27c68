// SPDX-License-Identifier: Apache-2.0
// What a pin, a lookup and a drain cost (docs/decisions/0003-life-of-a-mapping.md has the numbers).
#include "qcow2/pins.h"

#include <benchmark/benchmark.h>

#include "nodes/mem.h"
#include "qcow2/lookup.h"
#include "runtime/next_turn.h"
#include "runtime/runtime.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

void pin_and_release(benchmark::State& state) {
  Pins pins(1);
  for (auto turn : state) {
    const uint32_t generation = pins.begin_lookup(0);
    pins.end_lookup_pinned(0);
    benchmark::DoNotOptimize(generation);
    pins.release(0, generation);
  }
}
BENCHMARK(pin_and_release);

std::unique_ptr<Image> image_with_one_table(const sim::SimWorld& world) {
  auto storage = std::make_unique<SharedStorage>(std::make_unique<MemNode>("m", 1, ByteCount(0)));
  Header header;
  header.size = ByteCount(uint64_t{1} << 30);
  const std::vector<std::byte> l1(16);
  return std::make_unique<Image>(world.world(), std::move(storage), nullptr, header, l1,
                                 FormatLimits(), ImageOptions{1 << 20});
}

// One cluster of 64 KiB found in a slice in memory, its pin released at once.
void lookup_of_4_kib(benchmark::State& state) {
  sim::SimWorld world(1);
  std::unique_ptr<Image> image = image_with_one_table(world);
  Slice slice(0, image->geometry.slice_entries(), false);
  for (uint64_t i = 0; i < image->geometry.slice_entries(); ++i) {
    slice.store(i, L2Entry::owned(HostOffset((i * 7 % 509 + 16) << 16)));
  }
  image->l1.store(0, L1Entry::owned(HostOffset(1 << 16)));
  image->slices.publish(slice);
  Lookup lookup(*image, 0);
  uint64_t at = 0;
  for (auto turn : state) {
    Mapping mapping;
    bool pinned = false;
    uint32_t generation = 0;
    GuestRange range(GuestOffset(at), ByteCount(4096));
    CHECK(lookup.try_map(range, MapPurpose::kRead, mapping, pinned, generation));
    benchmark::DoNotOptimize(mapping.host);
    image->pins.release(0, generation);
    at = (at + 77 * 4096) & ((32 << 20) - 1);
  }
}
BENCHMARK(lookup_of_4_kib);

// One table's worth of nothing: how fast empty space is passed over.
void lookup_of_1_gib_of_nothing(benchmark::State& state) {
  sim::SimWorld world(1);
  std::unique_ptr<Image> image = image_with_one_table(world);
  Lookup lookup(*image, 0);
  for (auto turn : state) {
    Mapping mapping;
    bool pinned = false;
    uint32_t generation = 0;
    GuestRange range(GuestOffset(0), ByteCount(uint64_t{1} << 30));
    CHECK(lookup.try_map(range, MapPurpose::kRead, mapping, pinned, generation));
    benchmark::DoNotOptimize(mapping.length);
  }
}
BENCHMARK(lookup_of_1_gib_of_nothing);

Task<void> drain_many(Pins& pins, int64_t count) {
  for (int64_t i = 0; i < count; ++i) co_await pins.drain();
}

// Another shard holds a pin for one turn, again and again, while the home shard drains.
Task<void> keep_pinning(Shard& shard, Pins& pins, const std::atomic<bool>& stop) {
  while (!stop.load(std::memory_order_relaxed)) {
    const uint32_t generation = pins.begin_lookup(shard.index());
    pins.end_lookup_pinned(shard.index());
    co_await NextTurn(shard);
    pins.release(shard.index(), generation);
  }
}

Task<void> drain_and_stop(Pins& pins, int64_t count, std::atomic<bool>& stop) {
  co_await drain_many(pins, count);
  stop.store(true);
}

Task<void> pin_there(Shard& there, Pins& pins, const std::atomic<bool>& stop) {
  auto keep = [&there, &pins, &stop] { return keep_pinning(there, pins, stop); };
  co_await there.call(keep);
}

Task<void> drain_beside_pins(Shard& other, Pins& pins, int64_t count) {
  std::atomic<bool> stop{false};
  auto one = [&](size_t index) {
    return index == 0 ? pin_there(other, pins, stop) : drain_and_stop(pins, count, stop);
  };
  co_await when_all(2, one);
  co_await pins.close();
}

void drain_with_nobody_there(benchmark::State& state) {
  sim::SimWorld world(1);
  Pins pins(2);
  pins.set_home(world.shard(0));
  auto drain = [&](Shard&) { return drain_many(pins, 1000); };
  for (auto turn : state) CHECK(world.run(drain).ok());
  state.SetItemsProcessed(state.iterations() * 1000);
}
BENCHMARK(drain_with_nobody_there);

void drain_beside_a_busy_shard(benchmark::State& state) {
  SystemClock clock;
  Log log(-1, LogLevel::kWarning, "");
  RuntimeOptions options;
  options.shards = 2;
  Runtime runtime(options, clock, log);
  CHECK(runtime.start().ok());
  Pins pins(2);
  pins.set_home(*runtime.shards()[0]);
  auto drain = [&](Shard&) { return drain_beside_pins(*runtime.shards()[1], pins, 1000); };
  for (auto turn : state) CHECK(runtime.run(drain).ok());
  state.SetItemsProcessed(state.iterations() * 1000);
}
BENCHMARK(drain_beside_a_busy_shard)->UseRealTime();

}  // namespace
}  // namespace ringdisk::qcow2
