// SPDX-License-Identifier: Apache-2.0
// What one 64 KiB block costs to compress at each level, and what it becomes ("ratio": compressed
// size to size). Decision 0007 chose the default levels by whole images; this shows the slope
// between levels. The text is drawn words; the random block shows the price of finding out that
// nothing can be done.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "codec/deflate.h"
#include "codec/noise.h"
#include "codec/zstd_encoder.h"

namespace ringdisk {
namespace {

constexpr size_t kBlockBytes = 65536;

std::vector<std::byte> words() {
  Random random(1);
  std::vector<std::byte> block;
  while (block.size() < kBlockBytes) {
    const std::string word = "word" + std::to_string(random.below(4000)) + " ";
    for (char letter : word) block.push_back(static_cast<std::byte>(letter));
  }
  block.resize(kBlockBytes);
  return block;
}

std::vector<std::byte> noise() {
  Random random(2);
  std::vector<std::byte> block(kBlockBytes);
  for (std::byte& byte : block) byte = static_cast<std::byte>(random.next());
  return block;
}

template <class Encoder>
void compress(benchmark::State& state, const std::vector<std::byte>& block) {
  Encoder encoder(static_cast<uint32_t>(state.range(0)));
  std::vector<std::byte> stream(kBlockBytes - 1);
  size_t length = 0;
  for (auto _ : state) {
    length = encoder.compress(block, stream).value();
    benchmark::DoNotOptimize(length);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * int64_t{kBlockBytes});
  const double kept = length == 0 ? double{kBlockBytes} : static_cast<double>(length);
  state.counters["ratio"] = kept / double{kBlockBytes};
}

void deflate_words(benchmark::State& state) { compress<Deflater>(state, words()); }
void deflate_noise(benchmark::State& state) { compress<Deflater>(state, noise()); }
void zstd_words(benchmark::State& state) { compress<ZstdEncoder>(state, words()); }
void zstd_noise(benchmark::State& state) { compress<ZstdEncoder>(state, noise()); }

void find_noise(benchmark::State& state) {
  const std::vector<std::byte> block = noise();
  for (auto _ : state) benchmark::DoNotOptimize(is_noise(block));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * int64_t{kBlockBytes});
}

BENCHMARK(find_noise);
BENCHMARK(deflate_words)->DenseRange(1, 12);
BENCHMARK(deflate_noise)->Arg(1)->Arg(4)->Arg(6);
BENCHMARK(zstd_words)->DenseRange(1, 9)->Arg(19);
BENCHMARK(zstd_noise)->Arg(1)->Arg(3)->Arg(6);

}  // namespace
}  // namespace ringdisk
