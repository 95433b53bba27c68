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
//   co_await server.run(stop);             // until `stop` is cancelled and all is drained
//
// The devices of the exports are still open afterwards, without queues of ours.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/scope.h"
#include "base/limits.h"
#include "nbd/export.h"
#include "nbd/hand_over.h"
#include "runtime/network.h"
#include "runtime/world.h"

namespace ringdisk::nbd {

struct ServerOptions {
  std::vector<Address> addresses;                         // at least one
  uint32_t connections_max = limits::kNbdConnectionsMax;  // more are closed as they come
  HandOverLimits hand_over;                               // tests set their own
};

class Server {
 public:
  // `exports`: at least one, with different names. `world` outlives the server.
  Server(const World& world, ServerOptions options, std::vector<ExportOptions> exports);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Listens on all addresses, on the calling shard. Errors: the address's, by name.
  Task<void> listen();
  // Where it listens, with the ports the system chose. After listen().
  std::vector<Address> addresses() const;
  // Serves until `stop` is cancelled (on the calling shard, the one of listen()), then drains.
  // Once.
  Task<void> run(CancelToken stop);

  // home shard only
  uint32_t connections() const { return connections_; }
  uint64_t connections_total() const { return connections_total_; }

 private:
  struct ShardSide;

  Result<void> check_exports() const;
  Task<void> accept_and_serve(Scope& scope, CancelToken stop);
  Task<void> accept_loop(Scope& scope, Listener& listener, CancelToken stop);
  void admit(Scope& scope, std::unique_ptr<Connection> connection);
  Task<void> serve(std::unique_ptr<Connection> connection, uint32_t index);
  Task<void> serve_here(Connection& connection, CancelToken stop);
  void report_end(const std::string& peer, const Result<void>& served);
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
};

}  // namespace ringdisk::nbd
