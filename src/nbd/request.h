// SPDX-License-Identifier: Apache-2.0
// Request: one request of a client from the moment it was parsed until its reply is sent, with all
// the memory it needs; and RequestPool, which keeps them for reuse and bounds how many, and how
// many bytes of payload, are in flight.
//
//   RequestPool ─take─> session: parsed ─> perform(): device ─> ReplyWriter: encoded, sent ─>
//   back to the RequestPool
//
// A request belongs to its session's shard; while it is handed over, its header, memory and outcome
// are touched on the other shard alone.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "async/event.h"
#include "base/intrusive.h"
#include "base/limits.h"
#include "nbd/payload_budget.h"
#include "nbd/receive_buffer.h"
#include "nbd/status_contexts.h"
#include "nbd/wire.h"

namespace ringdisk::nbd {

// A part of a structured read.
struct ReadChunk {
  uint64_t offset = 0;
  uint32_t length = 0;
  bool is_hole = false;
};

// More extents than this are not told apart: the rest of the range is sent as data.
inline constexpr uint32_t kReadChunksMax = 8;

// Block status: descriptors in one reply, over all contexts.
inline constexpr uint32_t kDescriptorsMax = 4096;

static_assert(kStatusContextsMax <= kReadChunksMax, "a reply has room for both in its parts");

struct Request : ListLink {
  RequestHeader header;
  bool structured = false;   // how reads and errors are answered
  bool seeks_holes = false;  // a structured read that is large enough to look for holes
  uint64_t charged = 0;      // payload bytes, as the pool counts them

  Buffer buffer;        // target of a read, payload of a large write, block descriptors
  Bytes source;         // payload of a write: in `buffer`, or where it was received
  ReceivePin received;  // keeps the latter

  // outcome
  WireError error = WireError::kNone;
  std::string_view message;  // for people; a literal, or `refusal`
  std::string refusal;       // why it never went to the device
  uint32_t chunk_count = 0;  // reads
  // Block status: what is told about, and how many descriptors each has in `buffer`.
  const StatusContexts* contexts = nullptr;
  std::array<uint32_t, kStatusContextsMax> descriptor_counts{};
  std::array<ReadChunk, kReadChunksMax> chunks;

  // the reply as it is sent
  uint32_t part_count = 0;
  size_t reply_bytes = 0;
  std::array<iovec, 2 * kReadChunksMax> parts;
  std::array<std::byte, kReadChunksMax * kOffsetHoleBytes> reply_headers;

  MutableBytes target() const { return buffer.first(header.length); }
  // Each context has the same part of the buffer.
  MutableBytes descriptors_of(uint32_t context) const {
    const size_t each = kDescriptorsMax / contexts->count * kBlockDescriptorBytes;
    return buffer.first(size_t{kDescriptorsMax} * kBlockDescriptorBytes)
        .subspan(context * each, each);
  }
  void set_outcome(const Result<void>& done) {
    if (!done.ok()) set_outcome(done.error());
  }
  void set_outcome(const Error& failed) {
    error = wire_error_of(failed, (header.flags & kCommandFastZero) != 0);
    message = name_of(failed.kind);
  }
};

class RequestPool {
 public:
  // `budget` outlives it.
  explicit RequestPool(PayloadBudget& budget) : budget_(budget) {}
  ~RequestPool() { CHECK_EQ(in_flight_, uint32_t{0}); }

  // With nothing in flight that could make room: there is no memory for so much.
  bool is_beyond_budget(uint64_t payload_bytes) const {
    return in_flight_ == 0 && !budget_.grants(payload_bytes, 0);
  }
  // A request of its own for the caller, or null where one of the bounds is reached: then wait for
  // room(). Not what is_beyond_budget().
  Request* try_take(uint64_t payload_bytes);
  // With its memory; the reply is sent or not wanted any more.
  void give_back(Request& request);
  // Set when something was given back after a try_take in vain.
  Event& room() { return room_; }

  uint32_t in_flight() const { return in_flight_; }
  uint64_t payload_in_flight() const { return payload_in_flight_; }

 private:
  PayloadBudget& budget_;
  std::vector<std::unique_ptr<Request>> requests_;
  IntrusiveList<Request> free_;
  uint32_t in_flight_ = 0;
  uint64_t payload_in_flight_ = 0;
  Event room_;
};

}  // namespace ringdisk::nbd
