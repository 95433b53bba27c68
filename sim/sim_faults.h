// SPDX-License-Identifier: Apache-2.0
// SimFaults: which request of a simulated storage fails, and how. Requests are counted over all
// disks that share the plan, so a fault sweep (fault_sweep.h) can let the first, the second, …
// request of a whole scenario fail.
#pragma once

#include <cerrno>
#include <cstdint>
#include <optional>

namespace ringdisk::sim {

enum class SimOperation : uint8_t {
  kRead,
  kWrite,
  kWriteZeroes,
  kDiscard,
  kFlush,
  kFindExtent,
  kResize,
  kAllocate,
  kOpenQueue,
};

struct SimFaults {
  std::optional<uint64_t> fail_at;   // the request with this number fails, counted from 0
  bool fail_all_after = false;       // and every later one
  std::optional<SimOperation> only;  // count and fail requests of this kind alone
  int errno_value = EIO;
  // The failing request reports success: what the world looks like above a layer that loses errors.
  bool is_silent = false;

  // counted by the disks
  uint64_t requests = 0;
  uint64_t failed = 0;

  // Whether the next request fails.
  bool next_fails(SimOperation operation) {
    if (only && *only != operation) return false;
    uint64_t number = requests++;
    bool fails = fail_at && (number == *fail_at || (fail_all_after && number > *fail_at));
    failed += fails;
    return fails;
  }
};

}  // namespace ringdisk::sim
