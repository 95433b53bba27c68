// SPDX-License-Identifier: Apache-2.0
// Server: the NBD server as the command line and tests see it. It listens on several addresses,
// accepts on its home shard (the one that calls it), and spreads the connections over all shards,
// each to the shard that has the fewest. A session stays on its shard; a stop ends cleanly: accept
// no more, finish what runs, send the replies, flush, close.
//
//   nbd::ServerOptions options;
//   options.addresses.push_back(UnixAddress(…));
//   nbd::Server server(world, std::move(options), std::move(exports));
//   co_await server.listen();              // now clients can connect; say that the server is ready
//   co_await server.run(stop, hurry);      // until `stop` is cancelled and all is drained
//
// The devices of the exports are still open afterwards, without queues of ours.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/event.h"
#include "async/scope.h"
#include "base/limits.h"
#include "base/log_limiter.h"
#include "nbd/export.h"
#include "nbd/hand_over.h"
#include "nbd/payload_budget.h"
#include "nbd/place.h"
#include "runtime/network.h"
#include "runtime/world.h"

namespace ringdisk::nbd {

struct ServerOptions {
  std::vector<Address> addresses;  // at least one
  // A newcomer beyond them takes the place of the oldest that has not finished its handshake, or is
  // closed at once where all have. Where file descriptors run out before, likewise, but that a
  // newcomer waits where all have.
  uint32_t connections_max = limits::kNbdConnectionsMax;
  // tests set their own
  std::optional<uint64_t> payload_of_shard_max;  // default: payload_budget.h's
  HandOverLimits hand_over;
  // Told once how many clients a stop still waits for, a moment after it; on the home shard. May be
  // empty.
  std::function<void(uint32_t clients)> on_waiting;
};

class Server {
 public:
  // `exports`: at least one, with different names. `world` outlives the server.
  Server(const World& world, ServerOptions options, std::vector<ExportOptions> exports);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Opens each export once, then listens on all addresses, on the calling shard. Errors: the
  // device's; the address's, by name.
  Task<void> listen();
  // Where it listens, with the ports the system chose. After listen().
  std::vector<Address> addresses() const;
  // Serves until `stop` is cancelled (on the calling shard, the one of listen()), then drains: idle
  // connections end at once, others when their requests are done and the replies taken, within
  // limits::kNbdDrainSeconds or until `hurry` is cancelled. Then everything is flushed. Once.
  Task<void> run(CancelToken stop, CancelToken hurry = {});

  // home shard only
  uint32_t connections() const { return connections_; }
  uint64_t connections_total() const { return connections_total_; }

 private:
  struct ShardSide;

  Result<void> check_exports() const;
  Task<void> try_exports();
  Task<void> accept_and_serve(Scope& scope, CancelToken stop, CancelToken hurry);
  Task<void> accept_loop(Scope& scope, Listener& listener, CancelToken stop);
  Task<void> admit(Scope& scope, std::unique_ptr<Connection> connection);
  Task<bool> make_room();
  Task<bool> end_oldest();
  std::shared_ptr<Place> revoke_oldest();
  Task<void> serve(Scope& scope, std::unique_ptr<Connection> connection, uint32_t index);
  Task<void> serve_here(Connection& connection, Place& place, ShardSide& side);
  Task<void> cancel_on_all_shards(CancelSource ShardSide::*source);
  Task<void> tell_of_waiting();
  void report_end(Scope& scope, const std::string& peer, const Result<void>& served);
  void complain(Scope& scope, LogLevel level, const std::string& line);
  Task<void> sum_up_complaints();
  Task<void> flush_and_close();
  Task<void> flush_export(Export& served);
  uint32_t least_used_side() const;

  // constant after construction
  const World& world_;
  const ServerOptions options_;
  std::vector<std::unique_ptr<Export>> exports_;

  // home shard only
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<ShardSide>> sides_;  // index: Shard::index()
  uint32_t connections_ = 0;
  uint64_t connections_total_ = 0;
  IntrusiveList<Place>
      negotiating_;       // the oldest first; settled ones are left in it until looked at
  Event all_left_;        // set while there is no connection
  CancelSource drained_;  // after a stop: they have left, or nobody waits for them any more
  LogLimiter complaints_;
  LogLimiter deaf_spells_;
};

}  // namespace ringdisk::nbd
