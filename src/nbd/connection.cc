// SPDX-License-Identifier: Apache-2.0
// Handshake under a deadline, then transmission.
#include "nbd/connection.h"

#include "base/diagnostics.h"
#include "base/limits.h"
#include "nbd/handshake.h"
#include "nbd/server_session.h"

namespace ringdisk::nbd {
namespace {

// Ends a handshake that takes too long, or that the server's stop overtakes.
class HandshakeDeadline final : public CancelListener {
 public:
  HandshakeDeadline(CancelToken stop, Stream& stream) : stream_(stream) {
    if (stop.is_cancelled()) {
      cancel_.cancel();
    } else {
      stop.listen(*this);
    }
  }
  CancelToken token() { return cancel_.token(); }
  bool has_expired() const { return expired_; }
  void on_cancel() override { cancel_.cancel(); }

  // Until `done` is cancelled or the time is up.
  Task<void> watch(CancelToken done) {
    Result<void> slept =
        co_await Shard::current().sleep(std::chrono::seconds(limits::kNbdHandshakeSeconds), done);
    if (!slept.ok()) co_return;
    expired_ = true;
    cancel_.cancel();
    stream_.shut_down();  // a client that does not read holds up our writing as well
  }

 private:
  Stream& stream_;
  CancelSource cancel_;
  bool expired_ = false;
};

// Ends all reading and writing when the server will wait no longer.
class CutOff final : public CancelListener {
 public:
  CutOff(CancelToken hurry, Stream& stream) : stream_(stream) {
    if (hurry.is_cancelled()) {
      stream.shut_down();
    } else {
      hurry.listen(*this);
    }
  }
  void on_cancel() override { stream_.shut_down(); }

 private:
  Stream& stream_;
};

Task<Negotiated> negotiate_watched(Scope& scope, Handshake& handshake,
                                   HandshakeDeadline& deadline) {
  scope.spawn(deadline.watch(scope.token()));
  Result<Negotiated> negotiated = co_await handshake.run(deadline.token()).result();
  scope.cancel();
  co_return std::move(negotiated);
}

Task<Negotiated> negotiate(const ConnectionTerms& terms, Stream& stream, ReceiveBuffer& input,
                           CancelToken stop) {
  Handshake handshake(stream, input, terms.exports, terms.world.diagnostics);
  HandshakeDeadline deadline(stop, stream);
  Result<Negotiated> negotiated =
      co_await with_scope(&negotiate_watched, handshake, deadline).result();
  if (!negotiated.ok() && deadline.has_expired()) {
    co_return terms.world.diagnostics.explain(Error::of(ErrorKind::kTimeout, "NBD handshake"),
                                              "the client did not finish the handshake in time");
  }
  bool is_stopped = !negotiated.ok() && negotiated.error().kind == ErrorKind::kCancelled;
  if (is_stopped) co_return Negotiated();
  co_return std::move(negotiated);
}

}  // namespace

Task<void> serve_connection(const ConnectionTerms& terms, Stream& stream, CancelToken stop,
                            CancelToken hurry) {
  CutOff cut_off(hurry, stream);
  ReceiveBuffer input(stream, Shard::current().buffers());
  Negotiated negotiated = co_await negotiate(terms, stream, input, stop);
  if (!negotiated.served) co_return;
  auto session =
      std::make_unique<ServerSession>(terms.world, stream, input, negotiated, terms.hand_over);
  co_await session->run(stop);
}

}  // namespace ringdisk::nbd
