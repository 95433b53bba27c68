// SPDX-License-Identifier: Apache-2.0
// Seeds: everything a simulated test draws (the order of coroutines and messages, delays, what
// survives a crash, random operations) follows from one number. A failing test prints it;
// RINGDISK_SEED=<number> in the environment runs exactly that case again, RINGDISK_SEED_FACTOR=<n>
// runs n times as many seeds (a night's run).
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "base/random.h"

namespace ringdisk::sim {

// RINGDISK_SEED, or `otherwise`.
uint64_t seed_or(uint64_t otherwise);
// Whether RINGDISK_SEED asks for one seed alone.
bool is_seed_given();
// RINGDISK_SEED_FACTOR, or 1.
uint64_t seed_factor();

// Remembered for what a crashing process prints. Any thread.
void note_seed(uint64_t seed);
uint64_t noted_seed();

// A seed for one of several generators that hang on one seed: different `part`s give unrelated
// numbers.
inline uint64_t mix_seed(uint64_t seed, uint64_t part) {
  return Random(Random(seed).next() ^ (part * 0x9e3779b97f4a7c15u)).next();
}

// Calls test(seed) for `count` seeds (or for the one that was given), with the seed in the trace of
// every failure. Stops after the first seed that fails.
template <class Test>
void for_each_seed(uint64_t count, Test test) {
  uint64_t first = seed_or(1);
  uint64_t seeds = is_seed_given() ? 1 : count * seed_factor();
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed << "; again: RINGDISK_SEED=" << seed);
    note_seed(seed);
    test(seed);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace ringdisk::sim
