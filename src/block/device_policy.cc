// SPDX-License-Identifier: Apache-2.0
// QEMU's words.
#include "block/device_policy.h"

#include "base/diagnostics.h"
#include "block/options.h"

namespace ringdisk {

Result<DevicePolicy> make_policy(const std::optional<std::string>& detect_zeroes,
                                 const std::optional<std::string>& discard, DevicePolicy otherwise,
                                 Diagnostics& diagnostics) {
  auto refuse = [&diagnostics](std::string why) {
    return diagnostics.explain(Error::of(ErrorKind::kInvalid, "parse options"), std::move(why));
  };
  DevicePolicy policy = otherwise;
  if (discard) {
    const bool unmaps = *discard == "unmap" || *discard == "on";
    if (!unmaps && *discard != "ignore" && *discard != "off") {
      return refuse("discard is unmap or ignore, not '" + *discard + "'");
    }
    policy.discards = unmaps;
  }
  if (detect_zeroes == "off") {
    policy.detect_zeroes = DetectZeroes::kOff;
  } else if (detect_zeroes == "on") {
    policy.detect_zeroes = DetectZeroes::kOn;
  } else if (detect_zeroes == "unmap") {
    policy.detect_zeroes = DetectZeroes::kUnmap;
  } else if (detect_zeroes) {
    return refuse("detect-zeroes is off, on or unmap, not '" + *detect_zeroes + "'");
  }
  if (policy.detect_zeroes == DetectZeroes::kUnmap && !policy.discards) {
    return refuse(
        "detect-zeroes=unmap needs discard=unmap; with discard=ignore say "
        "detect-zeroes=on");
  }
  return policy;
}

Result<DevicePolicy> take_policy(Options& options, DevicePolicy otherwise,
                                 Diagnostics& diagnostics) {
  const std::optional<std::string> detect_zeroes = options.take("detect-zeroes");
  const std::optional<std::string> discard = options.take("discard");
  return make_policy(detect_zeroes, discard, otherwise, diagnostics);
}

}  // namespace ringdisk
