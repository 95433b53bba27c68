// SPDX-License-Identifier: Apache-2.0
// What may be forced on this machine, whichever it is.
#include "crypto/cpu_features.h"

#include <gtest/gtest.h>

namespace ringdisk {
namespace {

TEST(CpuFeaturesTest, AutoIsWhatTheMachineHas) {
  const CpuFeatures detected = CpuFeatures::detect();
  Result<CpuFeatures> chosen = CpuFeatures::choose("auto", detected);
  ASSERT_TRUE(chosen.ok());
  EXPECT_EQ(chosen.value().aes(), detected.aes());
}

TEST(CpuFeaturesTest, WhatTheMachineHasCanBeForcedAndNothingElse) {
  const CpuFeatures detected = CpuFeatures::detect();
  for (AesKernel kernel :
       {AesKernel::kNone, AesKernel::kAesni, AesKernel::kVaes256, AesKernel::kVaes512}) {
    Result<CpuFeatures> chosen = CpuFeatures::choose(name_of(kernel), detected);
    ASSERT_EQ(chosen.ok(), detected.has(kernel)) << name_of(kernel);
    if (chosen.ok()) {
      EXPECT_EQ(chosen.value().aes(), kernel);
    } else {
      EXPECT_EQ(chosen.error().kind, ErrorKind::kUnsupported);
    }
    // A machine without any has none of them to force.
    EXPECT_EQ(CpuFeatures::choose(name_of(kernel), CpuFeatures()).ok(), kernel == AesKernel::kNone);
  }
}

TEST(CpuFeaturesTest, OtherNamesAreInvalid) {
  for (const char* name : {"", "AUTO", "vaes", "sse2"}) {
    Result<CpuFeatures> chosen = CpuFeatures::choose(name, CpuFeatures::detect());
    ASSERT_FALSE(chosen.ok()) << name;
    EXPECT_EQ(chosen.error().kind, ErrorKind::kInvalid);
  }
}

}  // namespace
}  // namespace ringdisk
