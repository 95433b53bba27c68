// SPDX-License-Identifier: Apache-2.0
// Pacing in numbers: who waits how long.
#include "jobs/pacer.h"

#include <gtest/gtest.h>

namespace ringdisk {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Instant at(Duration since_start) { return {since_start}; }

TEST(PacerTest, WithoutARateNothingWaits) {
  Pacer pacer(0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(pacer.claim(~uint64_t{0}, at(seconds(5))), at(seconds(5)));
}

TEST(PacerTest, WhoComesLaterWaitsForWhatWasClaimedBefore) {
  Pacer pacer(1000);
  EXPECT_EQ(pacer.claim(500, at(seconds(7))), at(seconds(7)));
  EXPECT_EQ(pacer.claim(250, at(seconds(7))), at(milliseconds(7500)));
  EXPECT_EQ(pacer.claim(1, at(seconds(7))), at(milliseconds(7750)));
}

TEST(PacerTest, TimeThatWasNotUsedIsNotSavedUp) {
  Pacer pacer(1000);
  EXPECT_EQ(pacer.claim(1000, at(seconds(1))), at(seconds(1)));
  EXPECT_EQ(pacer.claim(1000, at(seconds(60))), at(seconds(60)));
  EXPECT_EQ(pacer.claim(1000, at(seconds(60))), at(seconds(61)));
}

TEST(PacerTest, TheSlowestRateDoesNotOverflow) {
  Pacer pacer(1);
  Instant last = at(seconds(0));
  for (int i = 0; i < 1000; ++i) {
    const Instant next = pacer.claim(~uint64_t{0}, at(seconds(0)));
    ASSERT_GE(next, last);
    last = next;
  }
}

}  // namespace
}  // namespace ringdisk
