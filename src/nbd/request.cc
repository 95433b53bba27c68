// SPDX-License-Identifier: Apache-2.0
// Taking requests and giving them back.
#include "nbd/request.h"

namespace ringdisk::nbd {

Request* RequestPool::try_take(uint64_t payload_bytes) {
  CHECK_LE(payload_bytes, limits::kNbdPayloadInFlightMax);
  CHECK(!is_beyond_budget(payload_bytes));
  if (in_flight_ == limits::kNbdRequestsInFlightMax ||
      payload_bytes > limits::kNbdPayloadInFlightMax - payload_in_flight_ ||
      !budget_.grants(payload_bytes, payload_in_flight_)) {
    room_.reset();
    return nullptr;
  }
  if (free_.empty()) {
    requests_.push_back(std::make_unique<Request>());
    free_.push_back(*requests_.back());
  }
  Request& request = free_.pop_front();
  request.charged = payload_bytes;
  ++in_flight_;
  payload_in_flight_ += payload_bytes;
  budget_.add(payload_bytes);
  return &request;
}

void RequestPool::give_back(Request& request) {
  request.buffer.release();
  request.received.release();
  request.source = {};
  request.seeks_holes = false;
  request.error = WireError::kNone;
  request.message = {};
  request.chunk_count = 0;
  request.contexts = nullptr;
  request.descriptor_counts = {};
  --in_flight_;
  payload_in_flight_ -= request.charged;
  budget_.remove(request.charged);
  free_.push_back(request);
  room_.set();
}

}  // namespace ringdisk::nbd
