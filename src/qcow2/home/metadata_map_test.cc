// SPDX-License-Identifier: Apache-2.0
// The map against a plain set, with clusters near one another, far apart, and asked about again
// after they have changed.
#include "qcow2/home/metadata_map.h"

#include <gtest/gtest.h>

#include <set>

#include "base/random.h"
#include "sim/seeds.h"

namespace ringdisk::qcow2 {
namespace {

TEST(MetadataMapTest, HoldsWhatAPlainSetHolds) {
  sim::for_each_seed(50, [](uint64_t seed) {
    Random random(seed);
    MetadataMap map;
    std::set<uint64_t> plain;
    uint64_t end = 0;
    auto draw = [&] {
      const uint64_t base = random.chance(20) ? (uint64_t{1} << 54) : 0;
      return base + random.below(3000);
    };
    for (int step = 0; step < 3000; ++step) {
      const uint64_t first = draw(), count = random.below(4);
      if (random.chance(30)) {
        bool is_new = true;
        for (uint64_t at = first; at < first + count; ++at) is_new &= plain.insert(at).second;
        EXPECT_EQ(map.add(ClusterIndex(first), count), is_new);
        if (count != 0) end = std::max(end, first + count);
      } else if (random.chance(30)) {
        for (uint64_t at = first; at < first + count; ++at) plain.erase(at);
        map.remove(ClusterIndex(first), count);
      }
      for (int look = 0; look < 3; ++look) {
        const uint64_t at = random.chance(50) ? first : draw();
        ASSERT_EQ(map.contains(ClusterIndex(at)), plain.contains(at)) << at;
        const uint64_t length = random.chance(20) ? random.below(2000) : random.below(4);
        const auto next = plain.lower_bound(at);
        const bool overlaps = next != plain.end() && *next < at + length;
        ASSERT_EQ(map.overlaps(ClusterIndex(at), length), overlaps) << at << " " << length;
      }
    }
    EXPECT_GE(map.end(), end);
  });
}

}  // namespace
}  // namespace ringdisk::qcow2
