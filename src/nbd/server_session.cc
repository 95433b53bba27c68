// SPDX-License-Identifier: Apache-2.0
// Receiving requests, starting them here or elsewhere, ending.
#include "nbd/server_session.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "async/on_cancel.h"
#include "async/yield.h"
#include "base/diagnostics.h"

namespace ringdisk::nbd {
namespace {

// Payload of one batch before its replies are sent: what the second-level cache still holds when
// they go to the socket.
constexpr uint64_t kBatchBytesMax = 256 << 10;
// The same while another shard may take half: enough work to be worth it.
constexpr uint64_t kSharedBatchBytesMax = 2 << 20;
// Work below this is not measured: reading the clock twice would cost a good part of it.
constexpr uint64_t kMeasuredUnitsMin = 8;
// After a large write the next one is expected: only its header is received through the buffer, so
// that its payload is not copied out of it.
constexpr size_t kReceiveAfterLargeWrite = 4096;

// A client may break rules as often as it likes; this many lines a period tell of it.
constexpr uint32_t kRefusalLinesMax = 5;
constexpr Duration kRefusalsPeriod = std::chrono::seconds(1);

RequestTerms terms_of(const Negotiated& negotiated) {
  RequestTerms terms;
  terms.size = negotiated.served->size();
  terms.read_only = negotiated.served->is_read_only();
  terms.structured_replies = negotiated.structured_replies;
  terms.block_status = negotiated.contexts.count != 0;
  return terms;
}

Task<void> perform_unless_refused(DeviceQueue& queue, Request& request) {
  if (request.error == WireError::kNone) co_await perform(queue, request, nullptr);
}

}  // namespace

void ServerSession::Batch::add(Request& request) {
  requests[count++] = &request;
  units += WorkEstimate::units_of(request.charged);
  bytes += request.charged;
}

ServerSession::Batch ServerSession::Batch::split() {
  Batch moved;
  const uint64_t half = units / 2;
  while (count > 1) {
    uint64_t last = WorkEstimate::units_of(requests[count - 1]->charged);
    if (moved.units + last > half) break;
    moved.add(*requests[--count]);
    units -= last;
  }
  return moved;
}

ServerSession::ServerSession(const World& world, Stream& stream, ReceiveBuffer& input,
                             const Negotiated& negotiated, const HandOverLimits& hand_over,
                             PayloadBudget& budget, std::string peer)
    : world_(world),
      shard_(Shard::current()),
      stream_(stream),
      input_(input),
      served_(*negotiated.served),
      terms_(terms_of(negotiated)),
      contexts_(negotiated.contexts),
      hand_over_(hand_over),
      peer_(std::move(peer)),
      refusals_(world.log, "requests of " + peer_, kRefusalLinesMax, kRefusalsPeriod),
      pool_(budget),
      writer_(stream, pool_, reading_) {}

Task<void> ServerSession::run(CancelToken stop) {
  queue_ = co_await served_.open_queue();
  auto body = [this, stop](Scope& scope) { return run_in(scope, stop); };
  co_await with_scope(body);
}

Task<void> ServerSession::run_in(Scope& scope, CancelToken stop) {
  auto end_reading = [this] { reading_.cancel(); };
  OnCancel on_stop(stop, end_reading);
  scope.spawn(writer_.run());
  Result<void> received = co_await receive_requests(scope).result();
  writer_.close();
  scope.spawn(cut_off_later());
  co_await writer_.ended().wait();
  drained_.cancel();
  refusals_.sum_up();
  if (is_cut_off_) {
    co_await fail(world_.diagnostics.explain(Error::of(ErrorKind::kTimeout, "NBD send"),
                                             "the client did not take its last replies in time"));
  }
  bool is_stopped = !received.ok() && received.error().kind == ErrorKind::kCancelled;
  if (!is_stopped) co_await std::move(received);
}

Task<void> ServerSession::cut_off_later() {
  Result<void> slept = co_await shard_.sleep(kDrainLongest, drained_.token());
  if (!slept.ok()) co_return;
  is_cut_off_ = true;
  stream_.shut_down();
}

// --- receiving -----------------------------------------------------------------------------------

Task<void> ServerSession::receive_requests(Scope& scope) {
  while (true) {
    Batch batch;
    Parsed parsed = parse_batch(batch);
    start(scope, batch);
    // The writer goes first, and so does everybody else on this shard: a busy client starves
    // nobody.
    co_await Yield();
    if (parsed == Parsed::kEnd) break;
    if (parsed == Parsed::kMore) continue;
    if (parsed == Parsed::kPayload) {
      co_await receive_unfinished(scope);
      continue;
    }
    bool goes_on = co_await wait_for(parsed);
    if (!goes_on) break;
  }
  if (is_violated_) co_await fail(violation_);
}

Task<bool> ServerSession::wait_for(Parsed wanted) {
  if (wanted == Parsed::kRoom) {
    Result<void> room = co_await pool_.room().wait_or_cancel(reading_.token());
    co_await std::move(room);
    co_return true;
  }
  size_t bytes = co_await input_.receive(receive_bytes_max_, reading_.token());
  if (bytes == 0 && !input_.received().empty()) {
    Error vanished = Error::of(ErrorKind::kProtocol, "NBD receive");
    co_return world_.diagnostics.explain(vanished, "the client vanished in mid-request");
  }
  co_return bytes != 0;
}

// A large write, or a refused one: its payload is not taken from the receive buffer.
Task<void> ServerSession::receive_unfinished(Scope& scope) {
  Request& request = *std::exchange(unfinished_, nullptr);
  Result<void> received = co_await receive_payload(request).result();
  if (!received.ok()) {
    pool_.give_back(request);
    co_await std::move(received);
  }
  Batch batch;
  batch.add(request);
  start(scope, batch);
}

Task<void> ServerSession::receive_payload(Request& request) {
  uint32_t length = request.header.length;
  if (request.error == WireError::kNone) take_memory(request, length);
  if (request.error != WireError::kNone) {
    co_await input_.skip(length, reading_.token());
    co_return;
  }
  co_await input_.receive_into(request.target(), reading_.token());
  request.source = request.target();
}

// Where there is none the client gets an answer, and the connection goes on.
void ServerSession::take_memory(Request& request, uint64_t bytes) {
  Result<Buffer> taken = shard_.buffers().try_take(bytes);
  if (taken.ok()) {
    request.buffer = std::move(taken).value();
  } else {
    request.set_outcome(taken.error());
  }
}

// --- parsing -------------------------------------------------------------------------------------

ServerSession::Parsed ServerSession::violate(ErrorKind kind, std::string text) {
  is_violated_ = true;
  violation_ = world_.diagnostics.explain(Error::of(kind, "NBD request"), std::move(text));
  return Parsed::kEnd;
}

// Whether a batch is large enough to be started. Where another shard could take half of it, it may
// grow.
bool ServerSession::is_full(const Batch& batch) {
  if (batch.count == batch.requests.size() || batch.bytes >= kSharedBatchBytesMax) return true;
  if (batch.bytes < kBatchBytesMax) return false;
  Duration half = estimate_.of(kSharedBatchBytesMax / WorkEstimate::kUnitBytes) / 2;
  if (half < hand_over_.awake) return true;
  Shard* other = find_idle_shard(world_, shard_, &turn_);
  return !other || !is_worth_hand_over(hand_over_, *other, half);
}

ServerSession::Parsed ServerSession::parse_batch(Batch& batch) {
  while (true) {
    if (is_full(batch)) return Parsed::kMore;
    Bytes bytes = input_.received();
    if (bytes.size() < kRequestHeaderBytes) return Parsed::kBytes;
    Result<RequestHeader> header = parse_request_header(bytes.first(kRequestHeaderBytes));
    if (!header.ok()) {
      return violate(ErrorKind::kProtocol, "the client sent something else than a request");
    }
    if (header.value().command == Command::kDisconnect) {
      input_.consume(kRequestHeaderBytes);
      return Parsed::kEnd;
    }
    uint32_t before = batch.count;
    Parsed parsed = parse_request(header.value(), batch);
    if (batch.count == before) return parsed;
  }
}

// Adds one request to the batch, or says why not.
ServerSession::Parsed ServerSession::parse_request(const RequestHeader& header, Batch& batch) {
  Verdict verdict = judge_request(header, terms_);
  bool writes = header.command == Command::kWrite;
  if (writes && header.length > limits::kNbdRequestBytesMax) {
    return violate(ErrorKind::kLimit, describe_refusal(Rule::kLength, header, terms_));
  }
  bool in_place = writes && header.length <= kInPlaceWriteBytesMax;
  if (in_place && input_.received().size() < kRequestHeaderBytes + header.length) {
    receive_bytes_max_ = ReceiveBuffer::kPieceBytes;
    return Parsed::kBytes;
  }
  const uint64_t payload_bytes = verdict.is_right() ? payload_bytes_of(header) : 0;
  const bool is_beyond_budget = pool_.is_beyond_budget(payload_bytes);
  Request* request = pool_.try_take(is_beyond_budget ? 0 : payload_bytes);
  if (!request) return Parsed::kRoom;
  ++requests_;
  input_.consume(kRequestHeaderBytes);
  request->header = header;
  request->structured = terms_.structured_replies;
  if (!verdict.is_right()) refuse(*request, verdict);
  if (is_beyond_budget) request->set_outcome(Error::from_errno(ENOMEM, "take payload"));
  receive_bytes_max_ = writes && !in_place ? kReceiveAfterLargeWrite : ReceiveBuffer::kPieceBytes;
  if (writes && !in_place) {
    unfinished_ = request;
    return Parsed::kPayload;
  }
  prepare(*request);
  batch.add(*request);
  return Parsed::kMore;
}

// The client gets an answer; whoever runs the server and asked for detail, a line.
void ServerSession::refuse(Request& request, const Verdict& verdict) {
  request.error = verdict.error;
  request.refusal = describe_refusal(verdict.broken, request.header, terms_);
  request.message = request.refusal;
  bool is_first_held_back =
      refusals_.write(LogLevel::kInfo, world_.clock.now().since_start,
                      "refused " + peer_ + " at '" + served_.name() + "': " + request.refusal);
  static_cast<void>(is_first_held_back);  // the end of the session sums up
}

// Gives the request the memory that it moves bytes to or from.
void ServerSession::prepare(Request& request) {
  const RequestHeader& header = request.header;
  bool is_right = request.error == WireError::kNone;
  if (header.command == Command::kWrite) {
    if (is_right) {
      request.source = input_.received().first(header.length);
      request.received = input_.pin();
    }
    input_.consume(header.length);
  } else if (is_right && header.command == Command::kRead) {
    // A client that selected base:allocation asks for the holes itself (nbdcopy, qemu-img), and has
    // left them out already; looking again would cost it a SEEK_HOLE a read.
    bool may_split = terms_.structured_replies && !contexts_.has_allocation();
    may_split = may_split && (header.flags & kCommandDf) == 0;
    request.seeks_holes = may_split && header.length >= kHoleSearchBytesMin;
    if (header.length != 0) take_memory(request, header.length);
  } else if (is_right && header.command == Command::kBlockStatus) {
    take_memory(request, request.charged);
    request.contexts = &contexts_;
  }
}

// --- starting ------------------------------------------------------------------------------------

void ServerSession::start(Scope& scope, Batch& batch) {
  if (batch.count == 0) return;
  hand_over_half(scope, batch);
  if (batch.units < kMeasuredUnitsMin) {
    start_here(scope, batch);
    return;
  }
  Instant begun = world_.clock.now();
  start_here(scope, batch);
  estimate_.add(batch.units, world_.clock.now() - begun);
}

void ServerSession::start_here(Scope& scope, const Batch& batch) {
  for (uint32_t i = 0; i < batch.count; ++i) {
    Request& request = *batch.requests[i];
    if (request.error != WireError::kNone) {
      writer_.add(request);
    } else {
      scope.spawn(perform(*queue_, request, &writer_));
    }
  }
}

void ServerSession::hand_over_half(Scope& scope, Batch& batch) {
  if (batch.count < 2 || world_.shards.size() < 2) return;
  Duration half = estimate_.of(batch.units) / 2;
  if (half < hand_over_.awake) return;
  Shard* other = find_idle_shard(world_, shard_, &turn_);
  if (!other || !is_worth_hand_over(hand_over_, *other, half)) return;
  Batch moved = batch.split();
  if (moved.count == 0) return;
  handed_over_ += moved.count;
  scope.spawn(run_elsewhere(*other, moved));
}

// Does the device's part on the other shard, with its queue; the memory and the replies stay this
// shard's.
Task<void> ServerSession::run_elsewhere(Shard& other, Batch moved) {
  auto perform_there = [this, &moved] { return perform_all(served_, moved); };
  Result<void> done = co_await other.call(perform_there).result();
  for (uint32_t i = 0; i < moved.count; ++i) {
    Request& request = *moved.requests[i];
    if (done.ok() || request.error != WireError::kNone) {
      writer_.add(request);
    } else {  // no queue to be had there
      co_await perform(*queue_, request, &writer_);
    }
  }
}

Task<void> ServerSession::perform_all(Export& served, const Batch& batch) {
  DeviceQueue* queue = co_await served.open_queue();
  auto perform_one = [queue, &batch](size_t index) {
    return perform_unless_refused(*queue, *batch.requests[index]);
  };
  size_t count = batch.count;
  co_await when_all(count, perform_one);
}

}  // namespace ringdisk::nbd
