// SPDX-License-Identifier: Apache-2.0
// XTS on 32-byte registers, for machines with VAES and without AVX-512: two blocks a register,
// eight registers (256 bytes) in flight. There are 16 registers in all, so tweaks rest in memory
// (L1) between their two uses. The arithmetic is that of crypto/xts_vaes512.cc.
#include <immintrin.h>

#include "crypto/xts_kernel.h"

#define RINGDISK_VAES256 [[gnu::target("aes,vaes,vpclmulqdq,avx2")]]
#define RINGDISK_VAES256_INLINE [[gnu::always_inline, gnu::target("aes,vaes,vpclmulqdq,avx2")]]

namespace ringdisk {
namespace {

constexpr size_t kLanes = 8;
constexpr size_t kLaneBytes = 32;
constexpr size_t kGroupBytes = kLanes * kLaneBytes;
constexpr size_t kBatchSectors = 16;
constexpr long long kPolynomial = 0x87;

RINGDISK_VAES256_INLINE inline __m256i load(const std::byte* at) {
  // why: the intrinsic wants the pointer's type; the load has no alignment
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}
RINGDISK_VAES256_INLINE inline void store(std::byte* at, __m256i blocks) {
  // why: the intrinsic wants the pointer's type; the store has no alignment
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), blocks);
}
RINGDISK_VAES256_INLINE inline __m256i round_key(const std::byte* keys, int round) {
  return _mm256_broadcastsi128_si256(
      // why: the intrinsic wants the pointer's type; the load has no alignment
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(keys + 16 * round)));
}

// `shifted` and `fallen` are both halves of each block shifted up, and what fell out of each half.
RINGDISK_VAES256_INLINE inline __m256i reduce(__m256i shifted, __m256i fallen) {
  const __m256i carried = _mm256_bslli_epi128(fallen, 8);
  const __m256i folded = _mm256_clmulepi64_epi128(fallen, _mm256_set1_epi64x(kPolynomial), 0x01);
  return _mm256_xor_si256(_mm256_xor_si256(shifted, carried), folded);
}

// Each block times x^bits, 0 < bits < 57.
template <int bits>
RINGDISK_VAES256_INLINE inline __m256i times_x(__m256i blocks) {
  return reduce(_mm256_slli_epi64(blocks, bits), _mm256_srli_epi64(blocks, 64 - bits));
}

// One tweak in both blocks -> times 1, x. A shift by 64 gives nothing, as it should.
RINGDISK_VAES256_INLINE inline __m256i spread(__m256i tweak) {
  const __m256i up = _mm256_set_epi64x(1, 1, 0, 0);
  const __m256i down = _mm256_set_epi64x(63, 63, 64, 64);
  return reduce(_mm256_sllv_epi64(tweak, up), _mm256_srlv_epi64(tweak, down));
}

template <bool encrypts>
RINGDISK_VAES256_INLINE inline __m256i middle_round(__m256i block, __m256i key) {
  return encrypts ? _mm256_aesenc_epi128(block, key) : _mm256_aesdec_epi128(block, key);
}
template <bool encrypts>
RINGDISK_VAES256_INLINE inline __m256i last_round(__m256i block, __m256i key) {
  return encrypts ? _mm256_aesenclast_epi128(block, key) : _mm256_aesdeclast_epi128(block, key);
}

// 256 bytes whose first two blocks have the tweaks `first`.
template <bool encrypts, int rounds>
RINGDISK_VAES256_INLINE inline void cipher_group(const std::byte* keys, __m256i first,
                                                 const std::byte* source, std::byte* target) {
  const __m256i tweaks[kLanes] = {first,
                                  times_x<2>(first),
                                  times_x<4>(first),
                                  times_x<6>(first),
                                  times_x<8>(first),
                                  times_x<10>(first),
                                  times_x<12>(first),
                                  times_x<14>(first)};
  const __m256i whitening = round_key(keys, 0);
  __m256i blocks[kLanes];
  for (size_t i = 0; i < kLanes; ++i) {
    blocks[i] = _mm256_xor_si256(load(source + i * kLaneBytes), tweaks[i]);
    blocks[i] = _mm256_xor_si256(blocks[i], whitening);
  }
  for (int round = 1; round < rounds; ++round) {
    const __m256i key = round_key(keys, round);
    for (size_t i = 0; i < kLanes; ++i) blocks[i] = middle_round<encrypts>(blocks[i], key);
  }
  const __m256i key = round_key(keys, rounds);
  for (size_t i = 0; i < kLanes; ++i) {
    blocks[i] = last_round<encrypts>(blocks[i], _mm256_xor_si256(key, tweaks[i]));
    store(target + i * kLaneBytes, blocks[i]);
  }
}

// T(s, 0) of kBatchSectors sectors, the first of which is `number`.
template <int rounds>
RINGDISK_VAES256_INLINE inline void make_tweaks(const std::byte* keys, uint64_t number,
                                                uint64_t step, uint64_t mask, std::byte* tweaks) {
  const __m256i steps = _mm256_set_epi64x(0, static_cast<long long>(step), 0, 0);
  const auto low = static_cast<long long>(mask);
  const __m256i masks = _mm256_set_epi64x(0, low, 0, low);
  const __m256i whitening = round_key(keys, 0);
  __m256i blocks[kLanes];
  for (size_t i = 0; i < kLanes; ++i) {
    const __m256i base = _mm256_set1_epi64x(static_cast<long long>(number + 2 * i * step));
    blocks[i] = _mm256_and_si256(_mm256_add_epi64(base, steps), masks);
    blocks[i] = _mm256_xor_si256(blocks[i], whitening);
  }
  for (int round = 1; round < rounds; ++round) {
    const __m256i key = round_key(keys, round);
    for (size_t i = 0; i < kLanes; ++i) blocks[i] = _mm256_aesenc_epi128(blocks[i], key);
  }
  const __m256i key = round_key(keys, rounds);
  for (size_t i = 0; i < kLanes; ++i) {
    store(tweaks + i * kLaneBytes, _mm256_aesenclast_epi128(blocks[i], key));
  }
}

template <bool encrypts, int rounds>
RINGDISK_VAES256 void run(const XtsRoundKeys& keys, const XtsWork& work) {
  alignas(32) std::byte tweaks[kBatchSectors * kAesBlockBytes];
  static_assert(kBatchSectors == 2 * kLanes);
  const std::byte* data_keys = encrypts ? keys.encrypt : keys.decrypt;
  const uint64_t step = work.sector_size / 512;
  const size_t sectors = work.bytes / work.sector_size;
  const std::byte* source = work.source;
  std::byte* target = work.target;
  for (size_t done = 0; done < sectors; ++done) {
    if (done % kBatchSectors == 0) {
      make_tweaks<rounds>(keys.tweak, work.first + done * step, step, work.number_mask, tweaks);
    }
    __m256i tweak = spread(round_key(tweaks, static_cast<int>(done % kBatchSectors)));
    for (size_t at = 0; at < work.sector_size; at += kGroupBytes) {
      // Round keys stay where they are locked and wiped: not hoisted, not spilled to the stack.
      __asm__("" : "+r"(data_keys));
      cipher_group<encrypts, rounds>(data_keys, tweak, source, target);
      tweak = times_x<16>(tweak);
      source += kGroupBytes;
      target += kGroupBytes;
    }
  }
}

}  // namespace

RINGDISK_VAES256 void xts_vaes256(const XtsRoundKeys& keys, const XtsWork& work, bool encrypts) {
  if (keys.rounds == 10) {
    encrypts ? run<true, 10>(keys, work) : run<false, 10>(keys, work);
  } else {
    encrypts ? run<true, 14>(keys, work) : run<false, 14>(keys, work);
  }
}

}  // namespace ringdisk
