// SPDX-License-Identifier: Apache-2.0
// OnCancel: does something of the caller's when a token is cancelled, or at once where it is
// already: what joins a cancellation to things that know nothing of tokens (another source, a
// stream to shut down, a flag that all shards look at). The action runs at most once, on the
// token's shard, from inside cancel(): it may not suspend, nor destroy this object. Destroyed, it
// acts no more.
//
//   auto cut_off = [&stream] { stream.shut_down(); };
//   OnCancel on_hurry(hurry, cut_off);
#pragma once

#include <atomic>
#include <utility>

#include "async/cancel.h"

namespace ringdisk {

template <class Action>
class OnCancel final : public CancelListener {
 public:
  OnCancel(CancelToken token, Action action) : action_(std::move(action)) {
    if (token.is_cancelled()) {
      action_();
    } else {
      token.listen(*this);
    }
  }
  void on_cancel() override { action_(); }

 private:
  Action action_;
};

// A cancellation, which belongs to one shard, as a flag that all shards may look at. The flag
// outlives it.
struct RaiseFlag {
  std::atomic<bool>* flag;
  void operator()() const { flag->store(true, std::memory_order_relaxed); }
};
class StopOnCancel {
 public:
  StopOnCancel(CancelToken token, std::atomic<bool>& stopped)
      : raise_(token, RaiseFlag{&stopped}) {}

 private:
  OnCancel<RaiseFlag> raise_;
};

}  // namespace ringdisk
