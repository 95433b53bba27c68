// SPDX-License-Identifier: Apache-2.0
// XTS on 64-byte registers: four blocks a register, eight registers (one sector of 512 bytes) in
// flight, which is what the latency of an AES round takes to hide. Two for one at the price of a
// wide machine: 1 AES round instruction a cycle bounds it, 112 cycles for 512 bytes with AES-256.
//
//   lane i of a sector   blocks 4i … 4i + 3    tweaks T * x^(4i) * {1, x, x^2, x^3}
//
// Tweaks are made from T directly, not one from the other: a shift, a carry-less product for what
// falls out at the top (x^128 = x^7 + x^2 + x + 1), and one three-way xor each.
#include <immintrin.h>

#include "crypto/xts_kernel.h"

#define RINGDISK_VAES512 [[gnu::target("aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512dq,avx512vl")]]
#define RINGDISK_VAES512_INLINE \
  [[gnu::always_inline, gnu::target("aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512dq,avx512vl")]]

namespace ringdisk {
namespace {

constexpr size_t kLanes = 8;
constexpr size_t kLaneBytes = 64;
constexpr size_t kGroupBytes = kLanes * kLaneBytes;
// Tweaks of this many sectors are made at once: four registers in flight.
constexpr size_t kBatchSectors = 16;
constexpr long long kPolynomial = 0x87;
constexpr int kXorAll = 0x96;  // a ^ b ^ c as a truth table

RINGDISK_VAES512_INLINE inline __m512i round_key(const std::byte* keys, int round) {
  return _mm512_broadcast_i32x4(
      // why: the intrinsic wants the pointer's type; the load has no alignment
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(keys + 16 * round)));
}

// `shifted` and `fallen` are both halves of each block shifted up, and what fell out of each half.
RINGDISK_VAES512_INLINE inline __m512i reduce(__m512i shifted, __m512i fallen) {
  const __m512i carried = _mm512_bslli_epi128(fallen, 8);
  const __m512i folded = _mm512_clmulepi64_epi128(fallen, _mm512_set1_epi64(kPolynomial), 0x01);
  return _mm512_ternarylogic_epi64(shifted, carried, folded, kXorAll);
}

// Each block times x^bits, 0 < bits < 57.
template <unsigned bits>
RINGDISK_VAES512_INLINE inline __m512i times_x(__m512i blocks) {
  return reduce(_mm512_slli_epi64(blocks, bits), _mm512_srli_epi64(blocks, 64 - bits));
}

// One tweak in all four blocks -> times 1, x, x^2, x^3. A shift by 64 gives nothing, as it should.
RINGDISK_VAES512_INLINE inline __m512i spread(__m512i tweak) {
  const __m512i up = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
  const __m512i down = _mm512_sub_epi64(_mm512_set1_epi64(64), up);
  return reduce(_mm512_sllv_epi64(tweak, up), _mm512_srlv_epi64(tweak, down));
}

template <bool encrypts>
RINGDISK_VAES512_INLINE inline __m512i middle_round(__m512i block, __m512i key) {
  return encrypts ? _mm512_aesenc_epi128(block, key) : _mm512_aesdec_epi128(block, key);
}
template <bool encrypts>
RINGDISK_VAES512_INLINE inline __m512i last_round(__m512i block, __m512i key) {
  return encrypts ? _mm512_aesenclast_epi128(block, key) : _mm512_aesdeclast_epi128(block, key);
}

// 512 bytes whose first four blocks have the tweaks `first`.
template <bool encrypts, int rounds>
RINGDISK_VAES512_INLINE inline void cipher_group(const std::byte* keys, __m512i first,
                                                 const std::byte* source, std::byte* target) {
  const __m512i tweaks[kLanes] = {first,
                                  times_x<4>(first),
                                  times_x<8>(first),
                                  times_x<12>(first),
                                  times_x<16>(first),
                                  times_x<20>(first),
                                  times_x<24>(first),
                                  times_x<28>(first)};
  const __m512i whitening = round_key(keys, 0);
  __m512i blocks[kLanes];
  for (size_t i = 0; i < kLanes; ++i) {
    blocks[i] = _mm512_ternarylogic_epi64(_mm512_loadu_si512(source + i * kLaneBytes), tweaks[i],
                                          whitening, kXorAll);
  }
  for (int round = 1; round < rounds; ++round) {
    const __m512i key = round_key(keys, round);
    for (size_t i = 0; i < kLanes; ++i) blocks[i] = middle_round<encrypts>(blocks[i], key);
  }
  const __m512i key = round_key(keys, rounds);
  for (size_t i = 0; i < kLanes; ++i) {
    blocks[i] = last_round<encrypts>(blocks[i], _mm512_xor_si512(key, tweaks[i]));
    _mm512_storeu_si512(target + i * kLaneBytes, blocks[i]);
  }
}

// T(s, 0) of kBatchSectors sectors, the first of which is `number`.
template <int rounds>
RINGDISK_VAES512_INLINE inline void make_tweaks(const std::byte* keys, uint64_t number,
                                                uint64_t step, uint64_t mask, std::byte* tweaks) {
  const auto stride = static_cast<long long>(step);
  const __m512i steps = _mm512_set_epi64(0, 3 * stride, 0, 2 * stride, 0, stride, 0, 0);
  const __m512i masks = _mm512_maskz_set1_epi64(0x55, static_cast<long long>(mask));
  const __m512i whitening = round_key(keys, 0);
  __m512i blocks[4];
  for (size_t i = 0; i < 4; ++i) {
    const __m512i base = _mm512_set1_epi64(static_cast<long long>(number + 4 * i * step));
    blocks[i] = _mm512_and_si512(_mm512_add_epi64(base, steps), masks);
    blocks[i] = _mm512_xor_si512(blocks[i], whitening);
  }
  for (int round = 1; round < rounds; ++round) {
    const __m512i key = round_key(keys, round);
    for (size_t i = 0; i < 4; ++i) blocks[i] = _mm512_aesenc_epi128(blocks[i], key);
  }
  const __m512i key = round_key(keys, rounds);
  for (size_t i = 0; i < 4; ++i) {
    _mm512_storeu_si512(tweaks + i * kLaneBytes, _mm512_aesenclast_epi128(blocks[i], key));
  }
}

template <bool encrypts, int rounds>
RINGDISK_VAES512 void run(const XtsRoundKeys& keys, const XtsWork& work) {
  alignas(64) std::byte tweaks[kBatchSectors * kAesBlockBytes];
  const std::byte* data_keys = encrypts ? keys.encrypt : keys.decrypt;
  const uint64_t step = work.sector_size / 512;
  const size_t sectors = work.bytes / work.sector_size;
  const std::byte* source = work.source;
  std::byte* target = work.target;
  for (size_t done = 0; done < sectors; ++done) {
    if (done % kBatchSectors == 0) {
      make_tweaks<rounds>(keys.tweak, work.first + done * step, step, work.number_mask, tweaks);
    }
    __m512i tweak = spread(round_key(tweaks, static_cast<int>(done % kBatchSectors)));
    for (size_t at = 0; at < work.sector_size; at += kGroupBytes) {
      // Round keys stay where they are locked and wiped: not hoisted, not spilled to the stack.
      __asm__("" : "+r"(data_keys));
      cipher_group<encrypts, rounds>(data_keys, tweak, source, target);
      tweak = times_x<32>(tweak);
      source += kGroupBytes;
      target += kGroupBytes;
    }
  }
}

}  // namespace

RINGDISK_VAES512 void xts_vaes512(const XtsRoundKeys& keys, const XtsWork& work, bool encrypts) {
  if (keys.rounds == 10) {
    encrypts ? run<true, 10>(keys, work) : run<false, 10>(keys, work);
  } else {
    encrypts ? run<true, 14>(keys, work) : run<false, 14>(keys, work);
  }
}

}  // namespace ringdisk
