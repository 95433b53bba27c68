// SPDX-License-Identifier: Apache-2.0
// Costs of new key slots: as forced, or measured by a clock that the test holds.
#include "luks/kdf_cost.h"

#include <gtest/gtest.h>

#include "crypto/kdf.h"

namespace ringdisk::luks {
namespace {

// Every look at it is `step` later than the last: so long each derivation takes.
class SteppingClock final : public Clock {
 public:
  explicit SteppingClock(Duration step) : step_(step) {}
  Instant now() const override { return {now_ += step_}; }

 private:
  const Duration step_;
  mutable Duration now_{0};
};

class KdfCost : public ::testing::Test {
 protected:
  Result<KdfParameters> choose(Duration each, KdfChoice choice, KdfKind kind) {
    const SteppingClock clock(each);
    return choose_kdf(clock, choice, kind, 32, Refusal(diagnostics_, 0));
  }

  Diagnostics diagnostics_;
};

using std::chrono::milliseconds;

TEST_F(KdfCost, IterationsFollowTheMeasurement) {
  KdfChoice choice;
  choice.milliseconds = 1000;
  // 10,000 iterations in 100 ms.
  KdfParameters kdf = choose(milliseconds(100), choice, KdfKind::kPbkdf2).value();
  EXPECT_EQ(kdf.iterations, 100'000u);
  EXPECT_EQ(kdf.salt.size(), kSaltBytes);
  choice.milliseconds = 1;
  kdf = choose(milliseconds(100), choice, KdfKind::kPbkdf2).value();
  EXPECT_EQ(kdf.iterations, kPbkdf2IterationsMin);
}

TEST_F(KdfCost, MemoryComesBeforePasses) {
  KdfChoice choice;
  choice.lanes = 1;
  choice.memory_kib = 64 << 10;
  choice.milliseconds = 400;
  // 4 passes over 16 MiB in 200 ms: 32 MiB are worth 400 ms.
  KdfParameters kdf = choose(milliseconds(200), choice, KdfKind::kArgon2id).value();
  EXPECT_EQ(kdf.memory_kib, 32u << 10);
  EXPECT_EQ(kdf.iterations, kArgon2PassesMin);
  choice.milliseconds = 4000;
  kdf = choose(milliseconds(200), choice, KdfKind::kArgon2id).value();
  EXPECT_EQ(kdf.memory_kib, 64u << 10) << "no more than is allowed";
  EXPECT_EQ(kdf.iterations, 20u);
}

TEST_F(KdfCost, AClockThatStandsStillEndsToo) {
  KdfChoice choice;
  choice.lanes = 1;
  choice.memory_kib = 64 << 10;
  KdfParameters kdf = choose(milliseconds(0), choice, KdfKind::kArgon2id).value();
  EXPECT_LE(kdf.memory_kib, 64u << 10);
  kdf = choose(milliseconds(0), choice, KdfKind::kPbkdf2).value();
  EXPECT_LE(kdf.iterations, kPbkdf2IterationsMax);
}

TEST_F(KdfCost, ForcedNumbersAreTakenOrRefusedByName) {
  KdfChoice choice;
  choice.iterations = 5000;
  EXPECT_EQ(choose(milliseconds(1), choice, KdfKind::kPbkdf2).value().iterations, 5000u);
  choice.iterations = 999;
  EXPECT_EQ(choose(milliseconds(1), choice, KdfKind::kPbkdf2).error().kind, ErrorKind::kInvalid);
  choice.iterations = 3;
  choice.memory_kib = 64;
  choice.lanes = 2;
  EXPECT_EQ(choose(milliseconds(1), choice, KdfKind::kArgon2i).error().kind, ErrorKind::kInvalid);
  choice.iterations = 4;
  const KdfParameters kdf = choose(milliseconds(1), choice, KdfKind::kArgon2i).value();
  EXPECT_EQ(kdf.kind, KdfKind::kArgon2i);
  EXPECT_EQ(kdf.memory_kib, 64u);
  EXPECT_EQ(kdf.lanes, 2u);
  choice.lanes = 5;
  EXPECT_FALSE(choose(milliseconds(1), choice, KdfKind::kArgon2id).ok());
  choice.lanes = 1;
  choice.memory_kib = 8;
  EXPECT_FALSE(choose(milliseconds(1), choice, KdfKind::kArgon2id).ok());
  choice.memory_kib = (4 << 20) + 1;
  EXPECT_FALSE(choose(milliseconds(1), choice, KdfKind::kArgon2id).ok());
}

}  // namespace
}  // namespace ringdisk::luks
