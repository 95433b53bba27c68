// SPDX-License-Identifier: Apache-2.0
// ServerSession: the transmission phase of one connection, on one shard. Requests are parsed from
// the receive buffer as many as are there, each runs as a child of the session's scope, and replies
// leave together:
//
//   receive ──> [r1 r2 … rn] ──> spawn perform(r1) … perform(rn) ──> yield: the writer sends
//      │            │             └ saturated: half goes to an idle shard (nbd/hand_over.h)
//      │            └ bounds of RequestPool reached: wait for room, the socket is not read
//      └─────────────────────────────────────────────────────────────── and again
//
// Cached requests complete while they are spawned, so a batch costs two system calls whatever its
// size. The price: replies wait for the batch they came with, which kBatchBytesMax bounds.
#pragma once

#include <array>
#include <string>

#include "async/scope.h"
#include "base/log_limiter.h"
#include "nbd/export.h"
#include "nbd/hand_over.h"
#include "nbd/handshake.h"
#include "nbd/judge.h"
#include "nbd/perform.h"
#include "nbd/reply_writer.h"
#include "runtime/shard.h"
#include "runtime/world.h"

namespace ringdisk::nbd {

// Writes up to this length go to the device from where they were received; larger ones are received
// into memory of their own, aligned, without passing through the receive buffer.
inline constexpr uint32_t kInPlaceWriteBytesMax = 64 * 1024;
static_assert(kInPlaceWriteBytesMax + kRequestHeaderBytes <= ReceiveBuffer::kContiguousMax);

// How long a connection may take to fetch its last replies.
inline constexpr Duration kDrainLongest = std::chrono::seconds(limits::kNbdDrainSeconds);

class ServerSession {
 public:
  // All outlive it. `negotiated.served` is not null. `peer` is who the client is to people.
  ServerSession(const World& world, Stream& stream, ReceiveBuffer& input,
                const Negotiated& negotiated, const HandOverLimits& hand_over,
                PayloadBudget& budget, std::string peer);

  // Until the client says goodbye or vanishes, breaks the protocol (kProtocol, kLimit, with a
  // note), or `stop` is cancelled; then finishes what runs and sends the replies. A client that
  // does not take them within kDrainLongest is cut off: kTimeout, with a note. Once.
  Task<void> run(CancelToken stop);

  // this shard only; for tests
  uint64_t requests() const { return requests_; }
  uint64_t handed_over() const { return handed_over_; }
  const ReplyWriter& writer() const { return writer_; }

 private:
  // Why parsing stopped.
  enum class Parsed : uint8_t {
    kMore,     // the batch is full
    kBytes,    // the next request is not here yet
    kRoom,     // a bound is reached
    kPayload,  // unfinished_ waits for its payload
    kEnd,      // goodbye, or violation_
  };
  struct Batch {
    std::array<Request*, limits::kNbdRequestsInFlightMax> requests;
    uint32_t count = 0;
    uint64_t units = 0;
    uint64_t bytes = 0;

    void add(Request& request);
    // Takes about half of the work from the end.
    Batch split();
  };

  Task<void> run_in(Scope& scope, CancelToken stop);
  Task<void> receive_requests(Scope& scope);
  // False: there is no more to come.
  Task<bool> wait_for(Parsed wanted);
  Task<void> receive_unfinished(Scope& scope);
  Task<void> receive_payload(Request& request);
  Parsed parse_batch(Batch& batch);
  Parsed parse_request(const RequestHeader& header, Batch& batch);
  void prepare(Request& request);
  void take_memory(Request& request, uint64_t bytes);
  void refuse(Request& request, const Verdict& verdict);
  Parsed violate(ErrorKind kind, std::string text);
  bool is_full(const Batch& batch);
  void start(Scope& scope, Batch& batch);
  void start_here(Scope& scope, const Batch& batch);
  void hand_over_half(Scope& scope, Batch& batch);
  Task<void> run_elsewhere(Shard& other, Batch moved);
  static Task<void> perform_all(Export& served, const Batch& batch);
  Task<void> cut_off_later();

  // constant after construction
  const World& world_;
  Shard& shard_;
  Stream& stream_;
  ReceiveBuffer& input_;
  Export& served_;
  const RequestTerms terms_;
  const StatusContexts contexts_;
  const HandOverLimits& hand_over_;
  const std::string peer_;

  // this shard only
  DeviceQueue* queue_ = nullptr;
  LogLimiter refusals_;
  RequestPool pool_;
  CancelSource reading_;
  CancelSource drained_;
  ReplyWriter writer_;
  WorkEstimate estimate_;
  uint32_t turn_ = 0;  // which shard find_idle_shard looks at next
  Request* unfinished_ =
      nullptr;  // a write whose payload is received into its own memory, or skipped
  size_t receive_bytes_max_ = ReceiveBuffer::kPieceBytes;
  bool is_cut_off_ = false;
  bool is_violated_ = false;
  Error violation_;
  uint64_t requests_ = 0;
  uint64_t handed_over_ = 0;
};

}  // namespace ringdisk::nbd
