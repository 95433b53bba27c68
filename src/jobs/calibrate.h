// SPDX-License-Identifier: Apache-2.0
// Calibration: what this machine pays for ciphers and for crossing between shards, and what follows
// from it: what `bench --calibrate` shows. The same measurement of a cipher is made when an
// encrypted disk is opened.
#pragma once

#include <string>
#include <vector>

#include "async/task.h"
#include "crypto/cpu_features.h"
#include "runtime/calibration.h"

namespace ringdisk {

struct CipherCost {
  std::string cipher;  // "aes-xts-plain64, 256 bits"
  std::string kernel;  // "vaes512", …, "openssl"
  // Of reads and of writes: in cbc the latter cost several times as much.
  struct Way {
    double ns_per_byte = 0;
    uint64_t in_place_bytes = 0;  // up to here nobody is asked to help
  };
  Way decrypt, encrypt;
};

struct Calibration {
  std::vector<CipherCost> ciphers;  // with every kernel of ours, and without
  CrossingCost crossing;
};

// A few milliseconds. `features` bounds the kernels.
Task<Calibration> calibrate(const World& world, CpuFeatures features);

}  // namespace ringdisk
