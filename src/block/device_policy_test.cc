// SPDX-License-Identifier: Apache-2.0
// The words of detect-zeroes and discard.
#include "block/device_policy.h"

#include <gtest/gtest.h>

#include "base/diagnostics.h"
#include "block/options.h"

namespace ringdisk {
namespace {

Result<DevicePolicy> parse(std::string_view text, Diagnostics& diagnostics) {
  Options options = Options::parse(text, diagnostics).value();
  Result<DevicePolicy> policy = take_policy(options, DevicePolicy(), diagnostics);
  EXPECT_TRUE(options.check_all_taken("a disk", diagnostics).ok()) << text;
  return policy;
}

TEST(DevicePolicyTest, TakesQemusWords) {
  Diagnostics diagnostics;
  EXPECT_EQ(parse("detect-zeroes=off", diagnostics).value().detect_zeroes, DetectZeroes::kOff);
  EXPECT_EQ(parse("detect-zeroes=on", diagnostics).value().detect_zeroes, DetectZeroes::kOn);
  EXPECT_EQ(parse("detect-zeroes=unmap,discard=unmap", diagnostics).value().detect_zeroes,
            DetectZeroes::kUnmap);
  for (const char* unmap : {"discard=unmap", "discard=on"}) {
    EXPECT_TRUE(parse(unmap, diagnostics).value().discards);
  }
  for (const char* ignore : {"discard=ignore", "discard=off"}) {
    EXPECT_FALSE(parse(ignore, diagnostics).value().discards);
  }
}

TEST(DevicePolicyTest, RefusesWhatIsNoWordAndWhatContradictsItself) {
  Diagnostics diagnostics;
  const std::pair<const char*, const char*> cases[] = {
      {"detect-zeroes=yes", "detect-zeroes is off, on or unmap"},
      {"discard=maybe", "discard is unmap or ignore"},
      {"detect-zeroes=unmap,discard=ignore", "needs discard=unmap"},
  };
  for (const auto& [text, why] : cases) {
    const Result<DevicePolicy> policy = parse(text, diagnostics);
    ASSERT_FALSE(policy.ok()) << text;
    EXPECT_EQ(policy.error().kind, ErrorKind::kInvalid);
    EXPECT_NE(diagnostics.describe(policy.error()).find(why), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace ringdisk
