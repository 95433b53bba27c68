// SPDX-License-Identifier: Apache-2.0
// Handshake under a deadline, then transmission.
#include "nbd/connection.h"

#include "async/on_cancel.h"
#include "base/diagnostics.h"
#include "base/limits.h"
#include "nbd/handshake.h"
#include "nbd/server_session.h"

namespace ringdisk::nbd {
namespace {

// What a client that lists needs for each export: libnbd lets a question about its contexts wait in
// its TCP socket for 200 ms.
constexpr Duration kHandshakePerExport = std::chrono::milliseconds(500);

// Ends a handshake that takes too long.
class HandshakeDeadline {
 public:
  HandshakeDeadline(Stream& stream, size_t exports)
      : stream_(stream),
        longest_(std::chrono::seconds(limits::kNbdHandshakeSeconds) +
                 kHandshakePerExport * (exports - 1)) {}
  CancelToken token() { return cancel_.token(); }
  bool has_expired() const { return expired_; }
  void end() { cancel_.cancel(); }

  // Until `done` is cancelled or the time is up.
  Task<void> watch(CancelToken done) {
    Result<void> slept = co_await Shard::current().sleep(longest_, done);
    if (!slept.ok()) co_return;
    expired_ = true;
    cancel_.cancel();
    stream_.shut_down();  // a client that does not read holds up our writing as well
  }

 private:
  Stream& stream_;
  const Duration longest_;
  CancelSource cancel_;
  bool expired_ = false;
};

Task<Negotiated> negotiate_watched(Scope& scope, Handshake& handshake,
                                   HandshakeDeadline& deadline) {
  scope.spawn(deadline.watch(scope.token()));
  Result<Negotiated> negotiated = co_await handshake.run(deadline.token()).result();
  scope.cancel();
  co_return std::move(negotiated);
}

Task<Negotiated> negotiate(const ConnectionTerms& terms, Stream& stream, ReceiveBuffer& input,
                           Place& place, CancelToken stop) {
  Handshake handshake(stream, input, terms.exports, place, terms.world.diagnostics);
  HandshakeDeadline deadline(stream, terms.exports.size());
  auto end_handshake = [&deadline] { deadline.end(); };
  OnCancel on_stop(stop, end_handshake);
  Result<Negotiated> negotiated =
      co_await with_scope(&negotiate_watched, handshake, deadline).result();
  if (!negotiated.ok() && deadline.has_expired()) {
    co_return terms.world.diagnostics.explain(Error::of(ErrorKind::kTimeout, "NBD handshake"),
                                              "the client did not finish the handshake in time");
  }
  if (!negotiated.ok() && place.is_revoked()) {
    co_return terms.world.diagnostics.explain(
        Error::of(ErrorKind::kBusy, "NBD handshake"),
        "all places are taken, and the client had not finished its handshake when another came");
  }
  bool is_stopped = !negotiated.ok() && negotiated.error().kind == ErrorKind::kCancelled;
  if (is_stopped) co_return Negotiated();
  co_return std::move(negotiated);
}

}  // namespace

Task<void> serve_connection(const ConnectionTerms& terms, Stream& stream, Place& place,
                            CancelToken stop, CancelToken hurry) {
  auto cut_off = [&stream] { stream.shut_down(); };
  OnCancel on_hurry(hurry, cut_off);
  CancelToken revoked = place.revoked().token();
  OnCancel on_revoked(revoked, cut_off);
  ReceiveBuffer input(stream, Shard::current().buffers());
  Negotiated negotiated = co_await negotiate(terms, stream, input, place, stop);
  if (!negotiated.served) co_return;
  auto session = std::make_unique<ServerSession>(terms.world, stream, input, negotiated,
                                                 terms.hand_over, terms.budget, place.peer());
  co_await session->run(stop);
}

}  // namespace ringdisk::nbd
