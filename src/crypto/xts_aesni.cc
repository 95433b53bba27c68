// SPDX-License-Identifier: Apache-2.0
// XTS on 16-byte registers, for every x86-64 machine with AES-NI: eight blocks (128 bytes) in
// flight. Tweaks come one from the other, a shift by one bit each; that chain is short beside the
// AES rounds it runs along with.
#include <immintrin.h>

#include "crypto/xts_kernel.h"

#define RINGDISK_AESNI [[gnu::target("aes,ssse3,sse4.1")]]
#define RINGDISK_AESNI_INLINE [[gnu::always_inline, gnu::target("aes,ssse3,sse4.1")]]

namespace ringdisk {
namespace {

constexpr size_t kBlocks = 8;
constexpr size_t kGroupBytes = kBlocks * kAesBlockBytes;
constexpr size_t kBatchSectors = 8;

RINGDISK_AESNI_INLINE inline __m128i load(const std::byte* at) {
  // why: the intrinsic wants the pointer's type; the load has no alignment
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}
RINGDISK_AESNI_INLINE inline void store(std::byte* at, __m128i block) {
  // why: the intrinsic wants the pointer's type; the store has no alignment
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), block);
}
RINGDISK_AESNI_INLINE inline __m128i round_key(const std::byte* keys, int round) {
  return load(keys + 16 * round);
}

// times x: both halves shifted up; the sign of each says what falls out of it (no branch).
RINGDISK_AESNI_INLINE inline __m128i times_x(__m128i tweak) {
  const __m128i signs = _mm_srai_epi32(_mm_shuffle_epi32(tweak, 0x13), 31);
  const __m128i carries = _mm_and_si128(signs, _mm_set_epi32(0, 1, 0, 0x87));
  return _mm_xor_si128(_mm_add_epi64(tweak, tweak), carries);
}

template <bool encrypts>
RINGDISK_AESNI_INLINE inline __m128i middle_round(__m128i block, __m128i key) {
  return encrypts ? _mm_aesenc_si128(block, key) : _mm_aesdec_si128(block, key);
}
template <bool encrypts>
RINGDISK_AESNI_INLINE inline __m128i last_round(__m128i block, __m128i key) {
  return encrypts ? _mm_aesenclast_si128(block, key) : _mm_aesdeclast_si128(block, key);
}

// 128 bytes, the first block with `tweak`; gives the tweak of the block after them.
template <bool encrypts, int rounds>
RINGDISK_AESNI_INLINE inline __m128i cipher_group(const std::byte* keys, __m128i tweak,
                                                  const std::byte* source, std::byte* target) {
  const __m128i whitening = round_key(keys, 0);
  __m128i tweaks[kBlocks];
  __m128i blocks[kBlocks];
  for (size_t i = 0; i < kBlocks; ++i) {
    tweaks[i] = tweak;
    blocks[i] = _mm_xor_si128(load(source + i * kAesBlockBytes), _mm_xor_si128(tweak, whitening));
    tweak = times_x(tweak);
  }
  for (int round = 1; round < rounds; ++round) {
    const __m128i key = round_key(keys, round);
    for (size_t i = 0; i < kBlocks; ++i) blocks[i] = middle_round<encrypts>(blocks[i], key);
  }
  const __m128i key = round_key(keys, rounds);
  for (size_t i = 0; i < kBlocks; ++i) {
    blocks[i] = last_round<encrypts>(blocks[i], _mm_xor_si128(key, tweaks[i]));
    store(target + i * kAesBlockBytes, blocks[i]);
  }
  return tweak;
}

// T(s, 0) of kBatchSectors sectors, the first of which is `number`.
template <int rounds>
RINGDISK_AESNI_INLINE inline void make_tweaks(const std::byte* keys, uint64_t number, uint64_t step,
                                              uint64_t mask, std::byte* tweaks) {
  const __m128i whitening = round_key(keys, 0);
  __m128i blocks[kBatchSectors];
  for (size_t i = 0; i < kBatchSectors; ++i) {
    const __m128i block = _mm_cvtsi64_si128(static_cast<long long>((number + i * step) & mask));
    blocks[i] = _mm_xor_si128(block, whitening);
  }
  for (int round = 1; round < rounds; ++round) {
    const __m128i key = round_key(keys, round);
    for (size_t i = 0; i < kBatchSectors; ++i) blocks[i] = _mm_aesenc_si128(blocks[i], key);
  }
  const __m128i key = round_key(keys, rounds);
  for (size_t i = 0; i < kBatchSectors; ++i) {
    store(tweaks + i * kAesBlockBytes, _mm_aesenclast_si128(blocks[i], key));
  }
}

template <bool encrypts, int rounds>
RINGDISK_AESNI void run(const XtsRoundKeys& keys, const XtsWork& work) {
  alignas(16) std::byte tweaks[kBatchSectors * kAesBlockBytes];
  const std::byte* data_keys = encrypts ? keys.encrypt : keys.decrypt;
  const uint64_t step = work.sector_size / 512;
  const size_t sectors = work.bytes / work.sector_size;
  const std::byte* source = work.source;
  std::byte* target = work.target;
  for (size_t done = 0; done < sectors; ++done) {
    if (done % kBatchSectors == 0) {
      make_tweaks<rounds>(keys.tweak, work.first + done * step, step, work.number_mask, tweaks);
    }
    __m128i tweak = load(tweaks + (done % kBatchSectors) * kAesBlockBytes);
    for (size_t at = 0; at < work.sector_size; at += kGroupBytes) {
      // Round keys stay where they are locked and wiped: not hoisted, not spilled to the stack.
      __asm__("" : "+r"(data_keys));
      tweak = cipher_group<encrypts, rounds>(data_keys, tweak, source, target);
      source += kGroupBytes;
      target += kGroupBytes;
    }
  }
}

}  // namespace

RINGDISK_AESNI void xts_aesni(const XtsRoundKeys& keys, const XtsWork& work, bool encrypts) {
  if (keys.rounds == 10) {
    encrypts ? run<true, 10>(keys, work) : run<false, 10>(keys, work);
  } else {
    encrypts ? run<true, 14>(keys, work) : run<false, 14>(keys, work);
  }
}

}  // namespace ringdisk
