// SPDX-License-Identifier: Apache-2.0
// Gate: counts what is under way, and lets one wait until nothing is. After close() nobody enters.
// The drain of every shutdown. One shard only.
//
//   GatePass pass; if (!gate.try_enter(pass)) co_return …;      co_await gate.close();
#pragma once

#include <cstdint>
#include <utility>

#include "async/event.h"
#include "base/check.h"

namespace ringdisk {

class Gate;

class [[nodiscard]] GatePass {
 public:
  GatePass() = default;
  GatePass(GatePass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
  GatePass& operator=(GatePass&& other) noexcept {
    if (this != &other) {
      leave();
      gate_ = std::exchange(other.gate_, nullptr);
    }
    return *this;
  }
  ~GatePass() { leave(); }
  inline void leave();

 private:
  friend class Gate;
  Gate* gate_ = nullptr;
};

class Gate {
 public:
  Gate() { nobody_inside_.set(); }
  ~Gate() { CHECK_EQ(inside_, uint64_t{0}); }

  // False once the gate is closed.
  bool try_enter(GatePass& pass) {
    if (closed_) return false;
    pass.leave();
    pass.gate_ = this;
    if (inside_++ == 0) nobody_inside_.reset();
    return true;
  }
  bool is_closed() const { return closed_; }
  uint64_t inside() const { return inside_; }

  // Refuses newcomers from now on; the awaiting coroutine goes on when nobody is inside.
  Event::Wait close() {
    closed_ = true;
    return nobody_inside_.wait();
  }

 private:
  friend class GatePass;
  void leave() {
    if (--inside_ == 0) nobody_inside_.set();
  }

  uint64_t inside_ = 0;
  bool closed_ = false;
  Event nobody_inside_;
};

inline void GatePass::leave() {
  if (gate_) std::exchange(gate_, nullptr)->leave();
}

}  // namespace ringdisk
