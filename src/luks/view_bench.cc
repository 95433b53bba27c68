// SPDX-License-Identifier: Apache-2.0
// One queue at depth 32, reads over a view over memory, with one shard and with two: what
// offloading wins in wall time ("ops") and what it costs in processor time ("cpu_us" an operation,
// all threads together). Arguments: shards, request size, 1 = a kernel of ours. OpenSSL without AES
// instructions, for the slow case: OPENSSL_ia32cap=~0x200000200000000 in the environment. Decision
// 0018 has the numbers.
#include "luks/view.h"

#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <array>

#include "jobs/bench.h"
#include "nodes/mem.h"
#include "nodes/raw.h"
#include "sim/real_world.h"

namespace ringdisk::luks {
namespace {

constexpr uint64_t kDiskBytes = 64 << 20;

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::shared_ptr<const SectorCipher> cipher_of(bool has_kernel) {
  std::array<std::byte, 64> key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
  return make_sector_cipher(CipherSpec(), key, 512,
                            has_kernel ? CpuFeatures::detect() : CpuFeatures())
      .value();
}

Task<Duration> run_job(const World& world, bool has_kernel, BenchOptions options,
                       uint64_t& helped) {
  auto content = std::make_shared<MemContent>(ByteCount(kDiskBytes));
  auto mem = std::make_unique<MemNode>("mem", 1, content);
  LuksViewOptions view_options;
  view_options.cipher = cipher_of(has_kernel);
  view_options.shards = world.shards;
  view_options.ns_per_byte = measure_cipher(*view_options.cipher, world.clock);
  auto view =
      std::make_unique<LuksView>(std::make_unique<SharedStorage>(std::move(mem)), view_options);
  LuksView& shown = *view;
  auto raw = std::make_unique<RawNode>(std::make_unique<SharedStorage>(std::move(view)),
                                       ByteCount(0), ByteCount(kDiskBytes));
  DeviceNode device("disk", 2, std::move(raw), nullptr);
  Duration elapsed;
  {
    BenchJob job(world, device, options);
    elapsed = co_await job.run(CancelToken());
  }
  helped = shown.helped();
  co_await device.close();
  co_return elapsed;
}

void one_queue(benchmark::State& state) {
  sim::RealWorld world(LoopKind::kBest, static_cast<uint32_t>(state.range(0)));
  BenchOptions options;
  options.depth = 32;
  options.queues = 1;
  options.buffer_bytes = static_cast<uint64_t>(state.range(1));
  options.count = (state.range(2) != 0 ? 2048u : 128u) * limits::kMiB / options.buffer_bytes;
  double cpu = 0;
  uint64_t helped = 0;
  for (auto _ : state) {
    const double before = cpu_seconds();
    auto body = [&](Shard&) {
      return run_job(world.world(), state.range(2) != 0, options, helped);
    };
    Result<Duration> elapsed = world.run(body);
    if (!elapsed.ok()) return state.SkipWithError("the job failed");
    state.SetIterationTime(static_cast<double>(elapsed.value().count()) / 1e9);
    cpu += cpu_seconds() - before;
  }
  const auto operations =
      static_cast<double>(state.iterations()) * static_cast<double>(options.count);
  state.counters["ops"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
  state.counters["cpu_us"] = cpu * 1e6 / operations;
  state.counters["helped"] = static_cast<double>(helped) / static_cast<double>(options.count);
}

BENCHMARK(one_queue)
    ->ArgNames({"shards", "bytes", "kernel"})
    ->ArgsProduct({{1, 2}, {4096, 65536, 1048576}, {0, 1}})
    ->UseManualTime()
    ->Iterations(3);

}  // namespace
}  // namespace ringdisk::luks
