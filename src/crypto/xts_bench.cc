// SPDX-License-Identifier: Apache-2.0
// AES-XTS over 64 KiB a call, in place, in cache: our kernels, and OpenSSL's EVP interface with an
// IV for each sector (what a SectorCipher without a kernel runs). Decision 0017 has the numbers.
// Arguments: sector size, bytes of the key (both halves), 1 = encrypt.
#include <benchmark/benchmark.h>

#include <vector>

#include "base/random.h"
#include "crypto/sector_cipher.h"

namespace ringdisk {
namespace {

constexpr size_t kCallBytes = 65536;

void run(benchmark::State& state, AesKernel kernel) {
  const CpuFeatures detected = CpuFeatures::detect();
  if (!detected.has(kernel)) return state.SkipWithError("this machine does not have it");
  const CpuFeatures features = CpuFeatures::choose(name_of(kernel), detected).value();
  Random random(1);
  std::vector<std::byte> key(static_cast<size_t>(state.range(1)));
  for (std::byte& byte : key) byte = static_cast<std::byte>(random.next());
  const auto sector_size = static_cast<uint32_t>(state.range(0));
  auto cipher = make_sector_cipher(CipherSpec(), key, sector_size, features).value();
  const bool encrypts = state.range(2) != 0;
  std::vector<std::byte> memory(kCallBytes);
  uint64_t first = 0;
  for (auto _ : state) {
    Result<void> done =
        encrypts ? cipher->encrypt(first, memory, memory) : cipher->decrypt(first, memory, memory);
    benchmark::DoNotOptimize(done);
    benchmark::ClobberMemory();
    first += kCallBytes / kSectorNumberBytes;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * int64_t{kCallBytes});
}

void xts_openssl(benchmark::State& state) { run(state, AesKernel::kNone); }
void xts_aesni(benchmark::State& state) { run(state, AesKernel::kAesni); }
void xts_vaes256(benchmark::State& state) { run(state, AesKernel::kVaes256); }
void xts_vaes512(benchmark::State& state) { run(state, AesKernel::kVaes512); }

void arguments(benchmark::internal::Benchmark* benchmark) {
  for (int64_t sector_size : {512, 4096}) {
    for (int64_t key_bytes : {32, 64}) {
      for (int64_t encrypts : {0, 1}) benchmark->Args({sector_size, key_bytes, encrypts});
    }
  }
}

BENCHMARK(xts_openssl)->Apply(arguments);
BENCHMARK(xts_aesni)->Apply(arguments);
BENCHMARK(xts_vaes256)->Apply(arguments);
BENCHMARK(xts_vaes512)->Apply(arguments);

}  // namespace
}  // namespace ringdisk
