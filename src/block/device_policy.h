// SPDX-License-Identifier: Apache-2.0
// DevicePolicy: what becomes of requests to a disk whatever its format: the options that QEMU has
// for every node of a description (driver=qcow2,detect-zeroes=unmap,discard=unmap,…). Constant
// after open; applied by the funnel (device_queue.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"

namespace ringdisk {

class Diagnostics;
class Options;

// Whether writes are looked through for zeros, which are then not written but zeroed.
enum class DetectZeroes : uint8_t {
  kOff,
  kOn,     // clusters stay as they are, or become zero clusters that keep their place
  kUnmap,  // what is zero is given back
};

struct DevicePolicy {
  DetectZeroes detect_zeroes = DetectZeroes::kOff;
  // discard=unmap. With ignore, discards do nothing, and zeroing gives nothing back.
  bool discards = true;
};

// From the words of options; what is absent is as in `otherwise`. kInvalid: no such word, or zeros
// are to be given back where nothing may be.
Result<DevicePolicy> make_policy(const std::optional<std::string>& detect_zeroes,
                                 const std::optional<std::string>& discard, DevicePolicy otherwise,
                                 Diagnostics& diagnostics);
// Takes the keys `detect-zeroes` and `discard`.
Result<DevicePolicy> take_policy(Options& options, DevicePolicy otherwise,
                                 Diagnostics& diagnostics);

}  // namespace ringdisk
