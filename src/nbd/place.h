// SPDX-License-Identifier: Apache-2.0
// Place: one of the few places a server has for connections. A client that does not get on with its
// handshake may lose it to a newer one, so that idle connections cannot lock others out; a client
// that was told of its export keeps it for good.
//
//   negotiating ──try_settle()──> settled     its own shard, before the answer that ends the
//        │                                    handshake leaves
//        └──────try_revoke()────> revoked     home shard, for a newer connection
//
// Made on the server's home shard, which keeps the negotiating ones in the order they came. Where
// both want to decide, one of them does: that is all the two shards share.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "async/cancel.h"
#include "async/event.h"
#include "base/intrusive.h"
#include "runtime/shard.h"

namespace ringdisk::nbd {

class Place : public ListLink, public std::enable_shared_from_this<Place> {
 public:
  Place(Shard& shard, std::string peer) : shard_(shard), peer_(std::move(peer)) {}

  // Its own shard. False: the place is given to another connection, this one has to end.
  bool try_settle() { return try_become(State::kSettled); }
  // Home shard. True: the connection will be ended by cancelling revoked() on its shard.
  bool try_revoke() { return try_become(State::kRevoked); }
  bool is_revoked() const { return state_.load(std::memory_order_acquire) == State::kRevoked; }

  const std::string& peer() const { return peer_; }  // who the client is to people
  Shard& shard() { return shard_; }                  // the one that serves it
  CancelSource& revoked() { return revoked_; }       // its own shard only
  Event& left() { return left_; }  // home shard only; set when the connection is gone

 private:
  enum class State : uint8_t { kNegotiating, kSettled, kRevoked };

  bool try_become(State wanted) {
    State expected = State::kNegotiating;
    return state_.compare_exchange_strong(expected, wanted, std::memory_order_acq_rel);
  }

  // constant after construction
  Shard& shard_;
  const std::string peer_;

  std::atomic<State> state_{State::kNegotiating};
  CancelSource revoked_;
  Event left_;
};

}  // namespace ringdisk::nbd
