// SPDX-License-Identifier: Apache-2.0
// Accepting, spreading and stopping.
#include "nbd/server.h"

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/diagnostics.h"
#include "base/log.h"
#include "nbd/connection.h"
#include "nbd/wire.h"
#include "runtime/shard.h"

namespace ringdisk::nbd {
namespace {

// After a failed accept (out of file descriptors, most likely) it is tried again after this long.
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);
// A stop that takes longer is spoken of.
constexpr Duration kSilentDrain = std::chrono::milliseconds(300);
// Clients that break the rules must not fill a disk with what is said of them.
constexpr Duration kComplaintsPeriod = std::chrono::seconds(1);
// Nor with saying, ten times a second, that it cannot accept any.
constexpr Duration kDeafSpellsPeriod = std::chrono::minutes(1);

// A connection less would help.
bool is_out_of_files(const Error& error) {
  return error.errno_value == EMFILE || error.errno_value == ENFILE;
}

}  // namespace

// What the server keeps for each shard.
struct Server::ShardSide {
  explicit ShardSide(uint64_t payload_max) : budget(payload_max) {}
  CancelSource stop, hurry;  // that shard only
  PayloadBudget budget;      // that shard only
  uint32_t connections = 0;  // home shard only
};

Server::Server(const World& world, ServerOptions options, std::vector<ExportOptions> exports)
    : world_(world),
      options_(std::move(options)),
      complaints_(world.log, "clients", limits::kNbdComplaintsMax, kComplaintsPeriod),
      deaf_spells_(world.log, "accepting clients", 1, kDeafSpellsPeriod) {
  CHECK(!exports.empty());
  all_left_.set();
  for (ExportOptions& served : exports) {
    exports_.push_back(std::make_unique<Export>(std::move(served), world.shards.size()));
  }
  const uint64_t payload_max =
      options_.payload_of_shard_max.value_or(payload_of_shard(world.shards.size()));
  for (size_t i = 0; i < world.shards.size(); ++i) {
    sides_.push_back(std::make_unique<ShardSide>(payload_max));
  }
}

Server::~Server() = default;

Result<void> Server::check_exports() const {
  for (size_t i = 0; i < exports_.size(); ++i) {
    const std::string& name = exports_[i]->name();
    bool is_taken = std::any_of(exports_.begin(), exports_.begin() + static_cast<ptrdiff_t>(i),
                                [&name](const auto& other) { return other->name() == name; });
    Error wrong = Error::of(ErrorKind::kInvalid, "serve");
    if (is_taken) {
      return world_.diagnostics.explain(
          wrong, "two exports are called '" + name + "'; give each a name of its own");
    }
    if (!is_protocol_string(name) || !is_protocol_string(exports_[i]->description())) {
      return world_.diagnostics.explain(wrong, "an export's name or description is longer than " +
                                                   std::to_string(limits::kNbdNameBytesMax) +
                                                   " bytes or holds a NUL");
    }
  }
  return {};
}

// Some images are only looked at closely when they are first used; what is wrong with them then is
// for whoever starts the server, not for its first client. An image with a home has it where its
// first connection is likely to be.
Task<void> Server::try_exports() {
  for (size_t i = 0; i < exports_.size(); ++i) {
    Export& served = *exports_[i];
    auto try_there = [&served] { return served.try_queue(); };
    co_await world_.shards[i % world_.shards.size()]->call(try_there);
  }
}

Task<void> Server::listen() {
  co_await check_exports();
  co_await try_exports();
  for (const Address& address : options_.addresses) {
    std::unique_ptr<Listener> listener = co_await world_.network.listen(address);
    listeners_.push_back(std::move(listener));
  }
}

std::vector<Address> Server::addresses() const {
  std::vector<Address> addresses;
  for (const auto& listener : listeners_) addresses.push_back(listener->address());
  return addresses;
}

Task<void> Server::run(CancelToken stop, CancelToken hurry) {
  auto body = [this, stop, hurry](Scope& scope) { return accept_and_serve(scope, stop, hurry); };
  Result<void> served = co_await with_scope(body).result();
  listeners_.clear();
  co_await flush_and_close();
  co_await std::move(served);
}

Task<void> Server::accept_and_serve(Scope& scope, CancelToken stop, CancelToken hurry) {
  for (const auto& listener : listeners_) scope.spawn(accept_loop(scope, *listener, stop));
  Event never;
  (void)co_await never.wait_or_cancel(stop);
  co_await cancel_on_all_shards(&ShardSide::stop);
  scope.spawn(tell_of_waiting());
  Result<void> left = co_await all_left_.wait_or_cancel(hurry);
  drained_.cancel();
  if (!left.ok()) co_await cancel_on_all_shards(&ShardSide::hurry);
}

Task<void> Server::cancel_on_all_shards(CancelSource ShardSide::*source) {
  for (size_t i = 0; i < sides_.size(); ++i) {
    ShardSide& side = *sides_[i];
    auto cancel_there = [&side, source] {
      (side.*source).cancel();
      return Result<void>();
    };
    co_await world_.shards[i]->call(cancel_there);
  }
}

Task<void> Server::tell_of_waiting() {
  Result<void> slept = co_await Shard::current().sleep(kSilentDrain, drained_.token());
  if (slept.ok() && options_.on_waiting) options_.on_waiting(connections_);
}

Task<void> Server::accept_loop(Scope& scope, Listener& listener, CancelToken stop) {
  while (!stop.is_cancelled()) {
    Result<std::unique_ptr<Connection>> accepted = co_await listener.accept(stop).result();
    if (accepted.ok()) {
      co_await admit(scope, std::move(accepted).value());
      continue;
    }
    if (stop.is_cancelled()) break;
    bool has_room = false;
    if (is_out_of_files(accepted.error())) has_room = co_await end_oldest();
    if (has_room) continue;
    bool is_first_held_back = deaf_spells_.write(
        LogLevel::kWarning, world_.clock.now().since_start,
        "cannot accept clients, which wait: " + world_.diagnostics.describe(accepted.error()));
    static_cast<void>(is_first_held_back);  // the next that is written sums up
    (void)co_await Shard::current().sleep(kAcceptPause, stop);
  }
}

Task<void> Server::admit(Scope& scope, std::unique_ptr<Connection> connection) {
  ++connections_total_;
  bool has_room = co_await make_room();
  if (!has_room) {
    complain(scope, LogLevel::kWarning,
             "refused " + connection->peer_name() + ": " + std::to_string(connections_) +
                 " connections are open already");
    co_return;
  }
  scope.spawn(serve(scope, std::move(connection), least_used_side()));
}

// False: all places are taken by clients that have finished their handshake.
Task<bool> Server::make_room() {
  while (connections_ >= options_.connections_max) {
    bool has_ended = co_await end_oldest();
    if (!has_ended) co_return false;
  }
  co_return true;
}

// Ends the connection that negotiates for the longest time; false: there is none. Waits until it is
// gone, so that a crowd never has more than its places; that is soon, since a handshake waits for
// nothing but its stream.
Task<bool> Server::end_oldest() {
  std::shared_ptr<Place> revoked = revoke_oldest();
  if (!revoked) co_return false;
  auto end_there = [&revoked] {
    revoked->revoked().cancel();
    return Result<void>();
  };
  co_await revoked->shard().call(end_there);
  co_await revoked->left().wait();
  co_return true;
}

std::shared_ptr<Place> Server::revoke_oldest() {
  while (!negotiating_.empty()) {
    Place& oldest = negotiating_.pop_front();
    if (oldest.try_revoke()) return oldest.shared_from_this();
  }
  return nullptr;
}

uint32_t Server::least_used_side() const {
  auto fewer = [](const auto& a, const auto& b) { return a->connections < b->connections; };
  return static_cast<uint32_t>(std::min_element(sides_.begin(), sides_.end(), fewer) -
                               sides_.begin());
}

Task<void> Server::serve(Scope& scope, std::unique_ptr<Connection> connection, uint32_t index) {
  ShardSide& side = *sides_[index];
  ++side.connections;
  ++connections_;
  all_left_.reset();
  std::string peer = connection->peer_name();
  world_.log.info("connected: " + peer + ", on shard " + std::to_string(index));
  auto place = std::make_shared<Place>(*world_.shards[index], peer);
  negotiating_.push_back(*place);
  auto serve_there = [this, &connection, &place, &side] {
    return serve_here(*connection, *place, side);
  };
  Result<void> served = co_await world_.shards[index]->call(serve_there).result();
  place->unlink();
  place->left().set();
  --side.connections;
  if (--connections_ == 0) all_left_.set();
  report_end(scope, peer, served);
}

void Server::report_end(Scope& scope, const std::string& peer, const Result<void>& served) {
  if (served.ok()) {
    world_.log.info("disconnected: " + peer);
    return;
  }
  // A client that vanishes is everyday life; one that breaks the rules is worth a line.
  bool is_peers_fault = served.error().note != 0;
  complain(scope, is_peers_fault ? LogLevel::kWarning : LogLevel::kInfo,
           "dropped " + peer + ": " + world_.diagnostics.describe(served.error()));
}

void Server::complain(Scope& scope, LogLevel level, const std::string& line) {
  bool is_first_held_back = complaints_.write(level, world_.clock.now().since_start, line);
  if (is_first_held_back) scope.spawn(sum_up_complaints());
}

// What was held back is also said when nothing follows it.
Task<void> Server::sum_up_complaints() {
  Result<void> slept = co_await Shard::current().sleep(kComplaintsPeriod, drained_.token());
  static_cast<void>(slept.ok());
  complaints_.sum_up();
}

Task<void> Server::serve_here(Connection& connection, Place& place, ShardSide& side) {
  std::unique_ptr<Stream> stream = connection.open_stream(Shard::current());
  ConnectionTerms terms(world_, exports_, options_.hand_over, side.budget);
  co_await serve_connection(terms, *stream, place, side.stop.token(), side.hurry.token());
}

Task<void> Server::flush_and_close() {
  Result<void> outcome;
  for (const auto& served : exports_) {
    Result<void> flushed = co_await flush_export(*served).result();
    if (!flushed.ok() && outcome.ok()) outcome = std::move(flushed);
    for (Shard* shard : world_.shards) {
      Export& closed = *served;
      auto close_there = [&closed] {
        closed.close_queue();
        return Result<void>();
      };
      co_await shard->call(close_there);
    }
  }
  co_await std::move(outcome);
}

Task<void> Server::flush_export(Export& served) {
  if (served.is_read_only()) co_return;
  DeviceQueue* queue = co_await served.open_queue();
  co_await queue->flush();
}

}  // namespace ringdisk::nbd
