// SPDX-License-Identifier: Apache-2.0
// The anti-forensic splitter of LUKS (LUKS1 on-disk format, section 2.4): a key becomes `stripes`
// times as many bytes, all of which are needed to get it back. So a key slot is gone when any one
// of its sectors has been overwritten, even where a disk keeps old copies of single sectors.
//
//   diffused(s1) ^ s2, diffused again … ^ last stripe = key
//
// Pure; any thread. 4000 stripes of 64 bytes cost about 1 ms.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "crypto/digest.h"

namespace ringdisk {

// material.size() == key.size() * stripes; stripes >= 1. The random stripes are drawn here.
Result<void> af_split(Hash hash, Bytes key, uint32_t stripes, MutableBytes material);

// The key of `material`, of the sizes above.
Result<void> af_merge(Hash hash, Bytes material, uint32_t stripes, MutableBytes key);

}  // namespace ringdisk
