// SPDX-License-Identifier: Apache-2.0
// Adopting and burying children.
#include "async/scope.h"

namespace ringdisk {

void Scope::adopt(PromiseBase& child) {
  child.set_on_settled(&on_child_settled, this);
  ++running_;
  child.start();
  if (!child.is_settled()) return;
  PromiseBase* next = on_child_settled(child, this);
  // The owner is running (it spawns), so it cannot be the one to go on.
  CHECK(next == nullptr);
}

PromiseBase* Scope::on_child_settled(PromiseBase& child, void* owner) {
  auto& scope = *static_cast<Scope*>(owner);
  if (child.has_error() && !scope.failed_) {
    scope.failed_ = true;
    scope.error_ = child.error();
    scope.cancel();
  }
  child.destroy();
  if (--scope.running_ != 0) return nullptr;
  PromiseBase& waiting = scope.owner_;
  if (waiting.joining_) {  // it has failed and only waits for its scopes' children
    for (Scope* open = waiting.scopes_; open; open = open->outer_) {
      if (open->running_ != 0) return nullptr;
    }
    waiting.joining_ = false;
    return &waiting;
  }
  if (!scope.waiting_) return nullptr;
  scope.waiting_ = false;
  return &waiting;
}

}  // namespace ringdisk
