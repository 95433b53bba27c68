// SPDX-License-Identifier: Apache-2.0
// Key schedules in locked memory, and the kernel that was chosen.
//
//   schedules_:  | data key, forward | data key, inverse | tweak key, forward |   240 bytes each
#include "crypto/xts_cipher.h"

#include <array>

#include "base/check.h"
#include "crypto/secret.h"
#include "crypto/xts_kernel.h"

namespace ringdisk::crypto_internal {
namespace {

XtsFunction function_of(AesKernel kernel) {
  switch (kernel) {
    case AesKernel::kAesni:
      return xts_aesni;
    case AesKernel::kVaes256:
      return xts_vaes256;
    case AesKernel::kVaes512:
      return xts_vaes512;
    case AesKernel::kNone:
      break;
  }
  UNREACHABLE("has_xts_kernel() said there is one");
}

class XtsCipher final : public SectorCipher {
 public:
  XtsCipher(SecretBytes schedules, size_t half_key_bytes, uint64_t number_mask,
            uint32_t sector_size, AesKernel kernel)
      : SectorCipher(sector_size),
        schedules_(std::move(schedules)),
        number_mask_(number_mask),
        kernel_(kernel),
        function_(function_of(kernel)) {
    keys_.encrypt = schedules_.bytes().data();
    keys_.decrypt = keys_.encrypt + kAesScheduleBytes;
    keys_.tweak = keys_.decrypt + kAesScheduleBytes;
    keys_.rounds = half_key_bytes == 16 ? 10 : kAesRoundsMax;
  }

  Result<void> encrypt(uint64_t first, Bytes source, MutableBytes target) const override {
    run(first, source, target, true);
    return {};
  }
  Result<void> decrypt(uint64_t first, Bytes source, MutableBytes target) const override {
    run(first, source, target, false);
    return {};
  }
  std::string_view kernel() const override { return name_of(kernel_); }

 private:
  void run(uint64_t first, Bytes source, MutableBytes target, bool encrypts) const {
    check_request(first, source, target);
    XtsWork work;
    work.first = first;
    work.number_mask = number_mask_;
    work.sector_size = sector_size();
    work.bytes = source.size();
    work.source = source.data();
    work.target = target.data();
    function_(keys_, work, encrypts);
  }

  // constant after construction
  const SecretBytes schedules_;
  const uint64_t number_mask_;
  const AesKernel kernel_;
  const XtsFunction function_;
  XtsRoundKeys keys_;
};

}  // namespace

bool has_xts_kernel(const CipherSpec& spec, size_t key_bytes, CpuFeatures features) {
  return features.has(AesKernel::kAesni) && spec.cipher == "aes" && spec.mode == "xts" &&
         (spec.iv == "plain" || spec.iv == "plain64") && (key_bytes == 32 || key_bytes == 64);
}

Result<std::unique_ptr<SectorCipher>> make_xts_cipher(const CipherSpec& spec, Bytes key,
                                                      uint32_t sector_size, CpuFeatures features) {
  CHECK(has_xts_kernel(spec, key.size(), features));
  const size_t half = key.size() / 2;
  ASSIGN_OR_RETURN(SecretBytes schedules, SecretBytes::make(3 * kAesScheduleBytes));
  const MutableBytes keys = schedules.bytes();
  expand_aes_key(key.first(half), keys.first(kAesScheduleBytes),
                 keys.subspan(kAesScheduleBytes, kAesScheduleBytes));
  std::array<std::byte, kAesScheduleBytes> unused;
  const WipeAtEnd wiped(unused);
  expand_aes_key(key.subspan(half), keys.last(kAesScheduleBytes), unused);
  const uint64_t mask = spec.iv == "plain" ? 0xffffffff : ~uint64_t{0};
  return std::make_unique<XtsCipher>(std::move(schedules), half, mask, sector_size, features.aes());
}

}  // namespace ringdisk::crypto_internal
