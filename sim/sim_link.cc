// SPDX-License-Identifier: Apache-2.0
// The bytes of a connection on their way.
#include "sim/sim_link.h"

#include <algorithm>
#include <cerrno>

namespace ringdisk::sim {

SimLink::SimLink(SimNetwork& owner) : network(owner), number(owner.next_link_++) {
  network.links_[number] = this;
  ++network.open_links_;
}

SimLink::~SimLink() {
  network.links_.erase(number);
  --network.open_links_;
}

void SimLink::cut() {
  is_cut = true;
  for (SimPipe& pipe : pipes) {
    pipe.bytes.clear();
    pipe.changed.notify_all();
  }
}

void SimLink::close(size_t side) {
  pipes[side].ended = true;
  pipes[1 - side].refused = true;
  for (SimPipe& pipe : pipes) pipe.changed.notify_all();
}

std::string SimConnection::peer_name() const {
  return link_ ? "sim:" + std::to_string(link_->number) : "sim";
}

void SimStream::shut_down() { link_->close(side_); }

bool SimStream::is_stalled() const {
  const auto& limit = link_->network.faults.stall_at_byte;
  return limit && link_->network.bytes_written_ >= *limit;
}

// What every operation begins with: it is counted, may be the one that fails, and may be late.
Task<void> SimStream::begin(const char* operation, CancelToken token) {
  if (link_->network.next_operation_fails()) {
    link_->cut();
    co_await fail(Error::from_errno(ECONNRESET, operation));
  }
  co_await link_->network.delay(token);
}

// A drawn prefix of what has arrived.
size_t SimStream::take(MutableBytes target) {
  std::deque<std::byte>& bytes = incoming().bytes;
  size_t there = std::min(bytes.size(), target.size());
  if (link_->network.behaviour.splits_reads && link_->network.random_.chance(50)) {
    there = 1 + link_->network.random_.below(there);
  }
  auto end = bytes.begin() + static_cast<std::ptrdiff_t>(there);
  std::copy(bytes.begin(), end, target.begin());
  bytes.erase(bytes.begin(), end);
  incoming().changed.notify_all();
  return there;
}

Task<size_t> SimStream::read_some(MutableBytes target, CancelToken token) {
  CHECK(!target.empty());
  CHECK(!std::exchange(reading_, true));
  Result<void> begun = co_await begin("read", token).result();
  while (begun.ok()) {
    if (token.is_cancelled()) begun = Error::of(ErrorKind::kCancelled, "read");
    if (link_->is_cut) begun = Error::from_errno(ECONNRESET, "read");
    bool at_end = incoming().refused || (incoming().ended && incoming().bytes.empty());
    bool has_arrived = !incoming().bytes.empty() && !is_stalled();
    if (!begun.ok() || at_end || has_arrived) break;
    CrossShardWait wait(incoming().changed, token);
    co_await wait;
  }
  reading_ = false;
  co_await std::move(begun);
  if (incoming().refused || incoming().bytes.empty()) co_return size_t{0};
  co_return take(target);
}

Task<void> SimStream::write_all(ConstBuffers source, CancelToken token) {
  CHECK(!std::exchange(writing_, true));
  Result<void> done = co_await begin("write", token).result();
  for (size_t offset = 0; done.ok() && offset < source.size();) {
    // One part at a time: a write that waits may be cut anywhere.
    Bytes piece;
    source.slice(offset, source.size() - offset).for_each([&piece](Bytes part) {
      if (piece.empty()) piece = part;
    });
    done = co_await write_piece(piece, token).result();
    offset += piece.size();
  }
  writing_ = false;
  co_await std::move(done);
}

Task<void> SimStream::write_piece(Bytes piece, CancelToken token) {
  SimNetwork& network = link_->network;
  while (!piece.empty()) {
    if (token.is_cancelled()) co_await fail(Error::of(ErrorKind::kCancelled, "write"));
    if (link_->is_cut) co_await fail(Error::from_errno(ECONNRESET, "write"));
    if (outgoing().refused || outgoing().ended) co_await fail(Error::from_errno(EPIPE, "write"));
    if (outgoing().bytes.size() >= network.behaviour.buffered_bytes) {
      CrossShardWait wait(outgoing().changed, token);
      co_await wait;
      continue;
    }
    size_t room = network.behaviour.buffered_bytes - outgoing().bytes.size();
    size_t count = std::min(room, piece.size());
    if (network.faults.cut_at_byte) {
      uint64_t until_cut = *network.faults.cut_at_byte -
                           std::min(network.bytes_written_, *network.faults.cut_at_byte);
      if (until_cut <= count) link_->cut();
      if (link_->is_cut) continue;
    }
    outgoing().bytes.insert(outgoing().bytes.end(), piece.begin(),
                            piece.begin() + static_cast<std::ptrdiff_t>(count));
    network.bytes_written_ += count;
    outgoing().changed.notify_all();
    piece = piece.subspan(count);
  }
}

}  // namespace ringdisk::sim
