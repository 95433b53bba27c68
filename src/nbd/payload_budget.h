// SPDX-License-Identifier: Apache-2.0
// PayloadBudget: the payload that all connections of one shard have in flight together. Each may
// have limits::kNbdPayloadInFlightMax, and a server 256 connections: without a bound on the sum,
// clients that ask for much and take nothing could make it hold 16 GiB.
//
// What a connection has always (kPayloadAlways) is granted beyond the budget, so none waits for
// another: where clients that stall have used it up, the others go on at a smaller depth, and a
// request that is larger than that gets ENOMEM.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/limits.h"

namespace ringdisk::nbd {

// Of a connection, whatever the others have; enough for what kernels and copying programs ask for.
inline constexpr uint64_t kPayloadAlways = 2 << 20;
// Over all shards of a server, as long as that is enough on each for one connection alone.
inline constexpr uint64_t kPayloadOfAllMax = 1 << 30;
constexpr uint64_t payload_of_shard(size_t shards) {
  return std::max<uint64_t>(kPayloadOfAllMax / shards, limits::kNbdPayloadInFlightMax);
}
static_assert(kPayloadAlways <= limits::kNbdPayloadInFlightMax);

// This shard only.
class PayloadBudget {
 public:
  explicit PayloadBudget(uint64_t bytes_max) : bytes_max_(bytes_max) {}
  PayloadBudget(const PayloadBudget&) = delete;
  PayloadBudget& operator=(const PayloadBudget&) = delete;
  ~PayloadBudget() { CHECK_EQ(bytes_, uint64_t{0}); }

  // Whether a connection with `own` bytes in flight may have `bytes` more.
  bool grants(uint64_t bytes, uint64_t own) const {
    return bytes_ + bytes <= bytes_max_ || own + bytes <= kPayloadAlways;
  }
  void add(uint64_t bytes) { bytes_ += bytes; }
  void remove(uint64_t bytes) { bytes_ -= bytes; }

 private:
  const uint64_t bytes_max_;
  uint64_t bytes_ = 0;
};

}  // namespace ringdisk::nbd
