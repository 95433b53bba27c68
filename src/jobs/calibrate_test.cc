// SPDX-License-Identifier: Apache-2.0
// Calibration on a real machine: every cipher has its cost, a kernel of ours is none dearer in
// place than its bound says; and in virtual time, where nothing takes any.
#include "jobs/calibrate.h"

#include <gtest/gtest.h>

#include <set>

#include "runtime/offload.h"
#include "sim/real_world.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

TEST(CalibrateTest, EveryCipherAndTheWayToAnotherShardCostSomething) {
  sim::RealWorld world(LoopKind::kBest, 2);
  const CpuFeatures features = CpuFeatures::detect();
  auto body = [&](Shard&) { return calibrate(world.world(), features); };
  Result<Calibration> done = world.run(body);
  ASSERT_TRUE(done.ok());
  std::set<std::string> kernels;
  for (const CipherCost& cost : done.value().ciphers) {
    kernels.insert(cost.kernel);
    for (const CipherCost::Way& way : {cost.decrypt, cost.encrypt}) {
      EXPECT_GT(way.ns_per_byte, 0.0) << cost.cipher << " by " << cost.kernel;
      const double in_place_ns = static_cast<double>(way.in_place_bytes) * way.ns_per_byte;
      EXPECT_LE(in_place_ns, static_cast<double>(kInPlaceNsMax));
    }
    // Each block waits for the one before it, with the sector's own as the only start.
    const bool is_chained = cost.cipher.find("cbc") != std::string::npos;
    if (is_chained) {
      EXPECT_GT(cost.encrypt.ns_per_byte, cost.decrypt.ns_per_byte);
    }
  }
  EXPECT_EQ(kernels.count("openssl"), 1u);
  EXPECT_EQ(kernels.count(std::string(name_of(features.aes()))),
            features.aes() == AesKernel::kNone ? 0u : 1u);
  EXPECT_GT(done.value().crossing.together.count(), 0);
  EXPECT_GE(done.value().crossing.asleep, done.value().crossing.together);
}

TEST(CalibrateTest, AloneThereIsNoWayToAnother) {
  sim::SimWorld world;
  auto body = [&](Shard&) { return calibrate(world.world(), CpuFeatures()); };
  Result<Calibration> done = world.run(body);
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done.value().crossing.asleep.count(), 0);
  EXPECT_EQ(done.value().ciphers.size(), 3u);
  for (const CipherCost& cost : done.value().ciphers) {
    EXPECT_EQ(cost.decrypt.in_place_bytes + cost.encrypt.in_place_bytes, 0u);
  }
}

}  // namespace
}  // namespace ringdisk
