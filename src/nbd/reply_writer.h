// SPDX-License-Identifier: Apache-2.0
// ReplyWriter: sends the replies of one connection. Finished requests queue up here; the writer is
// woken through the shard's ready queue, so that all requests that finish in one turn leave in one
// system call. Belongs to a session, on its shard.
//
//   add(r1) add(r2) ─> outgoing_ [r1 r2] ─run()─> one write_all of their parts ─> give_back
#pragma once

#include <array>

#include "async/cancel.h"
#include "async/event.h"
#include "async/task.h"
#include "nbd/request.h"
#include "runtime/network.h"

namespace ringdisk::nbd {

class ReplyWriter {
 public:
  // `reading` is cancelled when the client takes no more replies: then there is no use in reading
  // its requests.
  ReplyWriter(Stream& stream, RequestPool& pool, CancelSource& reading)
      : stream_(stream), pool_(pool), reading_(reading) {}

  // The request is done; its reply goes out soon, and then it goes back to its pool.
  void add(Request& request);
  // No more requests will be taken from the pool: run() ends when all in flight are answered.
  void close();
  // Sends until then. Where sending fails, replies are dropped. Spawned once by the session.
  Task<void> run();
  // Set when run() is done.
  Event& ended() { return ended_; }

  uint64_t sends() const { return sends_; }
  uint64_t replies() const { return replies_; }

 private:
  // Bounds of one write_all: its memory is free again only when all of it is sent.
  static constexpr size_t kPartsMax = 256;
  static constexpr size_t kBytesMax = size_t{1} << 20;

  size_t gather();
  Task<void> send_gathered(size_t parts);

  Stream& stream_;
  RequestPool& pool_;
  CancelSource& reading_;

  // this shard only
  IntrusiveList<Request> outgoing_;
  IntrusiveList<Request> sending_;
  std::array<iovec, kPartsMax> parts_;
  Event wanted_;
  Event ended_;
  bool closed_ = false;
  bool broken_ = false;
  uint64_t sends_ = 0;
  uint64_t replies_ = 0;
};

}  // namespace ringdisk::nbd
