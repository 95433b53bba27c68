// SPDX-License-Identifier: Apache-2.0
// One connection from its first byte to its last, on the shard that serves it: the handshake within
// its time, then the session. Nothing of it is left when this is done.
#pragma once

#include <memory>
#include <span>

#include "async/task.h"
#include "nbd/export.h"
#include "nbd/hand_over.h"
#include "nbd/payload_budget.h"
#include "nbd/place.h"
#include "runtime/network.h"
#include "runtime/world.h"

namespace ringdisk::nbd {

// What all connections of a server share on one shard; constant but for the budget.
struct ConnectionTerms {
  ConnectionTerms(const World& the_world, std::span<const std::unique_ptr<Export>> all_exports,
                  const HandOverLimits& hand_over_limits, PayloadBudget& payload_budget)
      : world(the_world),
        exports(all_exports),
        hand_over(hand_over_limits),
        budget(payload_budget) {}

  const World& world;
  std::span<const std::unique_ptr<Export>> exports;
  HandOverLimits hand_over;
  PayloadBudget& budget;  // the shard's
};

// On the calling shard, whose stream it is. Errors end only this connection: kTimeout (handshake),
// kBusy (`place` was given to a newer connection), kProtocol and kLimit (the client broke the
// rules; with a note), the stream's, the device's.
// Cancelling `stop` ends it cleanly, without an error: an idle connection at once, one with
// requests under way when they are answered. Cancelling `hurry`, later, cuts the stream off.
Task<void> serve_connection(const ConnectionTerms& terms, Stream& stream, Place& place,
                            CancelToken stop, CancelToken hurry);

}  // namespace ringdisk::nbd
