// SPDX-License-Identifier: Apache-2.0
// KdfLimits: what a header may make this program do. A header decides how much work an open is, so
// whoever opens says how much is allowed, for the whole command (--kdf-memory-max and its like) or
// for one image (kdf-memory-max=).
#pragma once

#include <array>
#include <cstdint>

#include "async/cancel.h"
#include "base/result.h"
#include "block/options.h"

namespace ringdisk::luks {

// The defaults are wider than what cryptsetup ever writes, and bound a derivation to about a
// minute.
struct KdfLimits {
  uint32_t pbkdf2_iterations_max = 100'000'000;
  uint32_t argon2_memory_kib_max = 4 << 20;           // 4 GiB
  uint64_t argon2_work_kib_max = uint64_t{64} << 20;  // passes x memory
  CancelToken stop = {};  // of the first shard: from then on no derivation is waited for
};

inline constexpr std::string_view kKdfIterationsMax = "kdf-iterations-max";
inline constexpr std::string_view kKdfMemoryMax = "kdf-memory-max";
inline constexpr std::string_view kKdfWorkMax = "kdf-work-max";
inline constexpr std::array<std::string_view, 3> kKdfLimitWords = {kKdfIterationsMax, kKdfMemoryMax,
                                                                   kKdfWorkMax};

// Takes kdf-iterations-max=N (of PBKDF2), kdf-memory-max=SIZE (of Argon2) and kdf-work-max=SIZE
// (its memory times its passes); what is absent is as in `otherwise`. Sizes count whole KiB. 0 of
// memory refuses Argon2.
Result<KdfLimits> take_kdf_limits(Options& options, KdfLimits otherwise, Diagnostics& diagnostics);

}  // namespace ringdisk::luks
