// SPDX-License-Identifier: Apache-2.0
// How an end travels: a loop over settled coroutines, so that a chain of any depth uses one stack
// frame.
#include "async/promise.h"

#include "async/scope.h"

namespace ringdisk {

PromiseBase* PromiseBase::next_after(PromiseBase& settled) {
  for (PromiseBase* done = &settled;;) {
    PromiseBase* next = done->awaiting_;
    if (!next) {  // a root, or a child of a scope: `done` may be destroyed by this
      next = done->on_settled_ ? done->on_settled_(*done, done->owner_) : nullptr;
      if (!next || !next->is_settled()) return next;
    } else {
      if (!done->has_error() || !done->propagates_error_) return next;
      next->fail(done->error_);
      if (!next->is_settled()) return nullptr;
    }
    done = next;
  }
}

void PromiseBase::destroy() { handle_.destroy(); }

void PromiseBase::resume(PromiseBase& coroutine) {
  for (PromiseBase* next = &coroutine; next;) {
    next->handle_.resume();
    if (!next->is_settled()) return;
    next = next_after(*next);
  }
}

void PromiseBase::fail(const Error& error) {
  state_ = State::kError;
  error_ = error;
  for (Scope* scope = scopes_; scope; scope = scope->outer_) {
    if (scope->running_ != 0) joining_ = true;
    scope->cancel();
  }
}

}  // namespace ringdisk
