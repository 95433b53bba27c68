// SPDX-License-Identifier: Apache-2.0
// Detection: Intel's manual, volume 2 (CPUID) and volume 1, 13.3 (XCR0, the states that the system
// saves).
#include "crypto/cpu_features.h"

#include <cpuid.h>

#include <array>

namespace ringdisk {
namespace {

constexpr std::array kKernels = {AesKernel::kNone, AesKernel::kAesni, AesKernel::kVaes256,
                                 AesKernel::kVaes512};

// XCR0: SSE and AVX state, and with AVX-512 its masks and the upper halves of its registers.
constexpr uint32_t kAvxStates = 0x06;
constexpr uint32_t kAvx512States = 0xe6;

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers registers;
  if (__get_cpuid_count(leaf, subleaf, &registers.a, &registers.b, &registers.c, &registers.d)) {
    return registers;
  }
  return {};
}

// Only where cpuid has OSXSAVE.
uint32_t saved_states() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool has_all(unsigned bits, unsigned wanted) { return (bits & wanted) == wanted; }

AesKernel detect_kernel() {
  const Registers basic = cpuid(1, 0);
  const Registers extended = cpuid(7, 0);
  if (!has_all(basic.c, bit_AES | bit_SSSE3 | bit_SSE4_1)) return AesKernel::kNone;
  const bool saves = has_all(basic.c, bit_OSXSAVE | bit_AVX);
  const uint32_t states = saves ? saved_states() : 0;
  if (!has_all(states, kAvxStates) || !has_all(extended.b, bit_AVX2) ||
      !has_all(extended.c, bit_VAES | bit_VPCLMULQDQ)) {
    return AesKernel::kAesni;
  }
  const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  if (!has_all(states, kAvx512States) || !has_all(extended.b, avx512)) return AesKernel::kVaes256;
  return AesKernel::kVaes512;
}

}  // namespace

std::string_view name_of(AesKernel kernel) {
  switch (kernel) {
    case AesKernel::kNone:
      return "none";
    case AesKernel::kAesni:
      return "aesni";
    case AesKernel::kVaes256:
      return "vaes256";
    case AesKernel::kVaes512:
      return "vaes512";
  }
  UNREACHABLE("a kernel is one of these four");
}

CpuFeatures CpuFeatures::detect() { return CpuFeatures(detect_kernel()); }

Result<CpuFeatures> CpuFeatures::choose(std::string_view name, CpuFeatures detected) {
  if (name == "auto") return detected;
  for (AesKernel kernel : kKernels) {
    if (name != name_of(kernel)) continue;
    if (!detected.has(kernel)) return Error::of(ErrorKind::kUnsupported, "choose cpu features");
    return CpuFeatures(kernel);
  }
  return Error::of(ErrorKind::kInvalid, "choose cpu features");
}

}  // namespace ringdisk
