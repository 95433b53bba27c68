// SPDX-License-Identifier: Apache-2.0
// StopOnCancel: a cancellation, which belongs to one shard, as a flag that all shards may look at.
// Lives on the token's shard, no longer than the flag.
#pragma once

#include <atomic>

#include "async/cancel.h"

namespace ringdisk {

class StopOnCancel final : public CancelListener {
 public:
  // Sets `stopped` when `token` is cancelled, or at once where it is already.
  StopOnCancel(CancelToken token, std::atomic<bool>& stopped) : stopped_(stopped) {
    if (token.is_cancelled()) {
      on_cancel();
    } else {
      token.listen(*this);
    }
  }
  void on_cancel() override { stopped_.store(true, std::memory_order_relaxed); }

 private:
  std::atomic<bool>& stopped_;
};

}  // namespace ringdisk
