// SPDX-License-Identifier: Apache-2.0
//
// The canary: a parser with a planted bug. The test run fuzzes it first and fails unless the bug
// is found in time, which proves that the other fuzzers' silence means something: that coverage
// guides them, that the sanitizers are linked in, and that a crash is noticed. Never mend it.
//
// The planted format is a magic of four bytes, a length byte, and that many bytes of payload. The
// parser trusts the length. Random bytes meet the magic once in 2^32 runs; a fuzzer that sees
// coverage finds it byte by byte.
#include <cstddef>
#include <cstdint>

namespace {

constexpr size_t kHeaderBytes = 5;

// The sum of the payload, which a correct parser would have clipped to `size`.
uint32_t sum_of_payload(const uint8_t* bytes, size_t size) {
  if (size < kHeaderBytes) return 0;
  if (bytes[0] != 'r') return 1;
  if (bytes[1] != 'd') return 2;
  if (bytes[2] != 'c') return 3;
  if (bytes[3] != '!') return 4;
  const size_t claimed = bytes[4];
  uint32_t sum = 5;
  for (size_t i = 0; i < claimed; ++i) sum += bytes[kHeaderBytes + i];  // the planted bug
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  // Using the sum keeps the bug from being optimised away; -1 means "not worth keeping" to
  // libFuzzer.
  constexpr uint32_t kNeverReached = ~0u;
  return sum_of_payload(bytes, size) == kNeverReached ? -1 : 0;
}
