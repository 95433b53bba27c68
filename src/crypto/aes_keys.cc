// SPDX-License-Identifier: Apache-2.0
// AES key expansion (FIPS 197, 5.2) by AES-NI, whose assist instruction is the S-box without a
// table. A step makes four words of the schedule: each is the one before it xor the one a key's
// length before, the first with the assist's word on top.
#include <immintrin.h>

#include <cstring>

#include "base/check.h"
#include "crypto/xts_kernel.h"

#define RINGDISK_AESNI [[gnu::target("aes,ssse3,sse4.1")]]

namespace ringdisk {
namespace {

struct Schedule {
  __m128i keys[kAesRoundsMax + 1];

  __m128i& operator[](size_t round) { return keys[round]; }
  const __m128i& operator[](size_t round) const { return keys[round]; }
};

RINGDISK_AESNI inline __m128i next_words(__m128i words, __m128i assist) {
  words = _mm_xor_si128(words, _mm_slli_si128(words, 4));
  words = _mm_xor_si128(words, _mm_slli_si128(words, 8));
  return _mm_xor_si128(words, assist);
}

// SubWord(RotWord(last word)) ^ round constant in every word.
template <int round_constant>
RINGDISK_AESNI inline __m128i rotated(__m128i words) {
  return _mm_shuffle_epi32(_mm_aeskeygenassist_si128(words, round_constant), 0xff);
}
// SubWord(last word): the step in the middle of a 32-byte key's.
RINGDISK_AESNI inline __m128i substituted(__m128i words) {
  return _mm_shuffle_epi32(_mm_aeskeygenassist_si128(words, 0), 0xaa);
}

RINGDISK_AESNI void expand_128(Schedule& keys) {
  keys[1] = next_words(keys[0], rotated<0x01>(keys[0]));
  keys[2] = next_words(keys[1], rotated<0x02>(keys[1]));
  keys[3] = next_words(keys[2], rotated<0x04>(keys[2]));
  keys[4] = next_words(keys[3], rotated<0x08>(keys[3]));
  keys[5] = next_words(keys[4], rotated<0x10>(keys[4]));
  keys[6] = next_words(keys[5], rotated<0x20>(keys[5]));
  keys[7] = next_words(keys[6], rotated<0x40>(keys[6]));
  keys[8] = next_words(keys[7], rotated<0x80>(keys[7]));
  keys[9] = next_words(keys[8], rotated<0x1b>(keys[8]));
  keys[10] = next_words(keys[9], rotated<0x36>(keys[9]));
}

template <int round_constant>
RINGDISK_AESNI inline void expand_pair(Schedule& keys, size_t at) {
  keys[at] = next_words(keys[at - 2], rotated<round_constant>(keys[at - 1]));
  if (at < kAesRoundsMax) keys[at + 1] = next_words(keys[at - 1], substituted(keys[at]));
}

RINGDISK_AESNI void expand_256(Schedule& keys) {
  expand_pair<0x01>(keys, 2);
  expand_pair<0x02>(keys, 4);
  expand_pair<0x04>(keys, 6);
  expand_pair<0x08>(keys, 8);
  expand_pair<0x10>(keys, 10);
  expand_pair<0x20>(keys, 12);
  expand_pair<0x40>(keys, 14);
}

RINGDISK_AESNI void invert(const Schedule& keys, Schedule& inverse, size_t rounds) {
  inverse[0] = keys[rounds];
  for (size_t i = 1; i < rounds; ++i) inverse[i] = _mm_aesimc_si128(keys[rounds - i]);
  inverse[rounds] = keys[0];
}

// The compiler may not drop it, though nobody looks at the memory again.
void wipe(Schedule& keys) {
  std::memset(&keys, 0, sizeof keys);
  __asm__ volatile("" : : "r"(&keys) : "memory");
}

}  // namespace

RINGDISK_AESNI void expand_aes_key(Bytes key, MutableBytes encrypt, MutableBytes decrypt) {
  CHECK(key.size() == 16 || key.size() == 32);
  CHECK_EQ(encrypt.size(), kAesScheduleBytes);
  CHECK_EQ(decrypt.size(), kAesScheduleBytes);
  Schedule keys = {};
  Schedule inverse = {};
  static_assert(sizeof keys == kAesScheduleBytes);
  std::memcpy(&keys, key.data(), key.size());
  if (key.size() == 16) {
    expand_128(keys);
    invert(keys, inverse, 10);
  } else {
    expand_256(keys);
    invert(keys, inverse, 14);
  }
  std::memcpy(encrypt.data(), &keys, sizeof keys);
  std::memcpy(decrypt.data(), &inverse, sizeof inverse);
  wipe(keys);
  wipe(inverse);
}

}  // namespace ringdisk
