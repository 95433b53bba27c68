// SPDX-License-Identifier: Apache-2.0
// CpuFeatures: which of our own AES kernels this machine can run, asked of the processor (cpuid)
// and of the system (xgetbv: a register file that is not saved between threads may not be used).
// A value that main() makes once and hands down; --cpu-features forces a lower one, so that tests
// and people can compare. The binary itself runs on machines that have none of them.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace ringdisk {

// Each can do what the ones before it can.
enum class AesKernel : uint8_t {
  kNone,     // OpenSSL, whatever it makes of the machine
  kAesni,    // AES-NI on 16-byte registers
  kVaes256,  // VAES and VPCLMULQDQ on the 32-byte registers of AVX2
  kVaes512,  // the same on the 64-byte registers of AVX-512
};

// "none", "aesni", "vaes256", "vaes512".
std::string_view name_of(AesKernel kernel);

class CpuFeatures {
 public:
  // No kernel of ours.
  constexpr CpuFeatures() = default;

  // The best this machine has.
  static CpuFeatures detect();
  // "auto" is what was detected; the name of a kernel forces that one. kInvalid: no such name;
  // kUnsupported: `detected` does not have it.
  static Result<CpuFeatures> choose(std::string_view name, CpuFeatures detected);

  constexpr AesKernel aes() const { return aes_; }
  constexpr bool has(AesKernel kernel) const { return aes_ >= kernel; }

 private:
  constexpr explicit CpuFeatures(AesKernel aes) : aes_(aes) {}

  AesKernel aes_ = AesKernel::kNone;
};

}  // namespace ringdisk
