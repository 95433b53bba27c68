// SPDX-License-Identifier: Apache-2.0
// Random: a small seeded generator (SplitMix64, public domain algorithm by Sebastiano Vigna). The
// same seed gives the same numbers on every machine: the simulator, the sweeps and `bench` print
// their seed and can be run again. Not for secrets.
#pragma once

#include <cstdint>

#include "base/check.h"

namespace ringdisk {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Uniform in [0, bound). `bound` > 0.
  uint64_t below(uint64_t bound) {
    CHECK_GT(bound, uint64_t{0});
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  // True in `percent` of 100 cases.
  bool chance(uint64_t percent) { return below(100) < percent; }

 private:
  uint64_t state_;
};

}  // namespace ringdisk
