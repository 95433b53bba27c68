// SPDX-License-Identifier: Apache-2.0
// What a request does to the device. It runs on whichever shard the queue belongs to; nothing of
// the session is touched but the request itself.
#pragma once

#include "async/task.h"
#include "block/device_queue.h"
#include "nbd/request.h"

namespace ringdisk::nbd {

class ReplyWriter;

// From this length on a structured read looks for holes first: one look costs about as much as
// reading 4 KiB.
inline constexpr uint32_t kHoleSearchBytesMin = 64 * 1024;
// Block status: mappings, and stretches of bitmaps, looked at for it (neighbours alike are merged).
inline constexpr uint32_t kStatusStepsMax = 4096;
// CACHE reads in pieces of this length.
inline constexpr uint64_t kCachePieceBytes = 256 * 1024;

// Payload memory that `header`, judged right, takes while it is in flight.
uint64_t payload_bytes_of(const RequestHeader& header);

// Does it and puts the outcome into `request`; never fails itself. Then adds it to `writer`, unless
// null. The frames of a plain read or write are this one and the device's.
Task<void> perform(DeviceQueue& queue, Request& request, ReplyWriter* writer);

}  // namespace ringdisk::nbd
