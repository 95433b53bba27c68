// SPDX-License-Identifier: Apache-2.0
// Random bytes that nobody can guess, for keys and salts, from OpenSSL's generator, which the
// kernel seeds. For everything that a test should be able to do again there is base/random.h.
#pragma once

#include "base/bytes.h"
#include "base/result.h"

namespace ringdisk {

// Any thread. An error where the system has no randomness to give.
Result<void> fill_with_secret_random(MutableBytes target);

}  // namespace ringdisk
