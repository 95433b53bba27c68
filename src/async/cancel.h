// SPDX-License-Identifier: Apache-2.0
// Cancellation: a CancelSource is asked to cancel once; waits that were given its token end with
// kCancelled, and loops ask `token.is_cancelled()`. Cancelling is a request: what runs finishes in
// its own time, its scope joins it. One shard only.
#pragma once

#include "base/intrusive.h"

namespace ringdisk {

class CancelSource;

// Something that wants to hear of a cancellation. Leaves the source's list when destroyed.
class CancelListener : public ListLink {
 public:
  virtual void on_cancel() = 0;

 protected:
  ~CancelListener() = default;
};

// A view of a source, or of none (never cancelled).
class CancelToken {
 public:
  CancelToken() = default;
  explicit CancelToken(CancelSource& source) : source_(&source) {}
  bool is_cancelled() const;
  // `listener` hears of a cancellation that comes later; the caller has asked is_cancelled() first.
  void listen(CancelListener& listener) const;

 private:
  CancelSource* source_ = nullptr;
};

class CancelSource {
 public:
  void cancel() {
    if (cancelled_) return;
    cancelled_ = true;
    while (!listeners_.empty()) listeners_.pop_front().on_cancel();
  }
  bool is_cancelled() const { return cancelled_; }
  CancelToken token() { return CancelToken(*this); }

 private:
  friend class CancelToken;
  IntrusiveList<CancelListener> listeners_;
  bool cancelled_ = false;
};

inline bool CancelToken::is_cancelled() const { return source_ && source_->is_cancelled(); }
inline void CancelToken::listen(CancelListener& listener) const {
  if (source_) source_->listeners_.push_back(listener);
}

}  // namespace ringdisk
