// SPDX-License-Identifier: Apache-2.0
// Commands as calls of the device.
#include "nbd/perform.h"

#include <algorithm>

#include "async/scope.h"
#include "codec/zero_detect.h"
#include "nbd/reply_writer.h"
#include "runtime/shard.h"

namespace ringdisk::nbd {
namespace {

GuestRange range_of(const RequestHeader& header) {
  return GuestRange(GuestOffset(header.offset), ByteCount(header.length));
}

// Appends `length` bytes to the chunks of a read. The last chunk that fits takes all the rest, as
// data.
void add_chunk(Request& request, uint64_t at, uint64_t length, bool is_hole) {
  if (request.chunk_count != 0) {
    ReadChunk& last = request.chunks[request.chunk_count - 1];
    if (request.chunk_count == kReadChunksMax) {
      last.is_hole = false;
    } else if (last.is_hole != is_hole) {
      request.chunks[request.chunk_count++] = {at, static_cast<uint32_t>(length), is_hole};
      return;
    }
    last.length += static_cast<uint32_t>(length);
    return;
  }
  request.chunks[request.chunk_count++] = {at, static_cast<uint32_t>(length), is_hole};
}

Task<void> find_chunks(DeviceQueue& queue, Request& request) {
  uint64_t at = request.header.offset;
  const uint64_t end = at + request.header.length;
  while (at != end) {
    // The rest is sent as data anyway: nothing to look for.
    bool is_full = request.chunk_count == kReadChunksMax;
    uint64_t length = end - at;
    bool is_hole = false;
    if (!is_full) {
      GuestRange rest = GuestRange::between(GuestOffset(at), GuestOffset(end));
      BlockStatus status = co_await queue.block_status(rest, limits::kBackingDepthMax);
      length = std::min(length, status.length.value());
      is_hole = status.zero;
    }
    add_chunk(request, at, length, is_hole);
    at += length;
  }
}

Task<void> read_chunk(DeviceQueue& queue, Request& request, size_t index) {
  const ReadChunk& chunk = request.chunks[index];
  if (chunk.is_hole) co_return;
  MutableBytes target =
      request.target().subspan(chunk.offset - request.header.offset, chunk.length);
  co_await queue.read(GuestOffset(chunk.offset), MutableBuffers(target));
}

Task<void> read_sparsely(DeviceQueue& queue, Request& request) {
  Result<void> found = co_await find_chunks(queue, request).result();
  if (!found.ok()) {  // reading says what is wrong, if anything is
    request.chunk_count = 0;
    add_chunk(request, request.header.offset, request.header.length, false);
  }
  size_t count = request.chunk_count;
  auto read_one = [&queue, &request](size_t index) { return read_chunk(queue, request, index); };
  co_await when_all(count, read_one);
}

Task<void> write_zeroes(DeviceQueue& queue, const RequestHeader& header) {
  ZeroOptions options;
  options.may_unmap = (header.flags & kCommandNoHole) == 0;
  options.fast_only = (header.flags & kCommandFastZero) != 0;
  options.fua = (header.flags & kCommandFua) != 0;
  GuestRange range = range_of(header);
  co_await queue.write_zeroes(range, options);
}

Task<void> trim(DeviceQueue& queue, const RequestHeader& header) {
  GuestRange range = range_of(header);
  co_await queue.discard(range);
  if ((header.flags & kCommandFua) != 0) co_await queue.flush();
}

// Brings the range into whatever caches there are below by reading it, in pieces of bounded memory.
Task<void> cache(DeviceQueue& queue, const RequestHeader& header) {
  Buffer buffer = co_await Shard::current().buffers().try_take(kCachePieceBytes);
  for (uint64_t done = 0; done < header.length;) {
    uint64_t length = std::min<uint64_t>(header.length - done, kCachePieceBytes);
    MutableBytes target = buffer.first(length);
    co_await queue.read(GuestOffset(header.offset + done), MutableBuffers(target));
    done += length;
  }
}

uint32_t state_of(const BlockStatus& status) {
  return (status.data ? 0 : kStateHole) | (status.zero ? kStateZero : 0);
}

// The extents of one context, encoded into its part of the request's buffer. Ends early at a bound:
// the protocol lets a reply cover less than was asked for, as long as it covers something.
class DescriptorList {
 public:
  DescriptorList(Request& request, uint32_t context)
      : target_(request.descriptors_of(context)), count_(request.descriptor_counts[context]) {
    const bool wants_one = (request.header.flags & kCommandReqOne) != 0;
    capacity_ = wants_one ? 1 : target_.size() / kBlockDescriptorBytes;
  }

  // False: no room for another state.
  bool add(uint64_t length, uint32_t flags) {
    if (length_ != 0 && flags == flags_) {
      length_ += length;
      return true;
    }
    if (length_ != 0) write_out();
    if (count_ == capacity_) return false;
    length_ = length;
    flags_ = flags;
    return true;
  }
  void finish() {
    if (length_ != 0) write_out();
  }

 private:
  void write_out() {
    size_t at = count_++ * kBlockDescriptorBytes;
    encode_block_descriptor(target_.subspan(at), static_cast<uint32_t>(length_), flags_);
    length_ = 0;
  }

  const MutableBytes target_;
  uint32_t& count_;
  uint64_t capacity_ = 0;
  uint64_t length_ = 0;  // of the descriptor that still grows
  uint32_t flags_ = 0;
};

Task<void> describe_allocation(DeviceQueue& queue, Request& request, uint32_t context) {
  DescriptorList descriptors(request, context);
  uint64_t at = request.header.offset;
  const uint64_t end = at + request.header.length;
  for (uint32_t step = 0; at != end && step < kStatusStepsMax; ++step) {
    GuestRange rest = GuestRange::between(GuestOffset(at), GuestOffset(end));
    BlockStatus status = co_await queue.block_status(rest, limits::kBackingDepthMax);
    uint64_t length = std::min(end - at, status.length.value());
    if (!descriptors.add(length, state_of(status))) break;
    at += length;
  }
  descriptors.finish();
}

void describe_bitmap(const DirtyBits& bits, Request& request, uint32_t context) {
  DescriptorList descriptors(request, context);
  GuestRange rest = range_of(request.header);
  for (uint32_t step = 0; !rest.empty() && step < kStatusStepsMax; ++step) {
    const DirtyBits::Stretch stretch = bits.find_stretch(rest);
    if (!descriptors.add(stretch.length.value(), stretch.is_dirty ? kStateDirty : 0)) break;
    rest = GuestRange::between(rest.offset + stretch.length, rest.end());
  }
  descriptors.finish();
}

Task<void> block_status(DeviceQueue& queue, Request& request) {
  const StatusContexts& contexts = *request.contexts;
  for (uint32_t i = 0; i < contexts.count; ++i) {
    if (const DirtyBits* bits = contexts.selected[i].bits) {
      describe_bitmap(*bits, request, i);
    } else {
      co_await describe_allocation(queue, request, i);
    }
  }
}

Task<void> perform_rarer(DeviceQueue& queue, Request& request) {
  switch (request.header.command) {
    case Command::kRead:
      co_await read_sparsely(queue, request);
      break;
    case Command::kFlush:
      co_await queue.flush();
      break;
    case Command::kTrim:
      co_await trim(queue, request.header);
      break;
    case Command::kWriteZeroes:
      co_await write_zeroes(queue, request.header);
      break;
    case Command::kCache:
      co_await cache(queue, request.header);
      break;
    case Command::kBlockStatus:
      co_await block_status(queue, request);
      break;
    case Command::kWrite:
    case Command::kDisconnect:
      UNREACHABLE("not one of the rarer requests");
  }
}

// A small read looks for holes in what it got, not in the tables: data that is not zero shows it in
// its first bytes, and zeros cost a tenth of what sending them would, here and at the client.
void leave_out_zeros(Request& request) {
  const bool may_be_hole = request.structured && (request.header.flags & kCommandDf) == 0;
  if (!may_be_hole || request.chunk_count != 1) return;
  if (request.header.length >= kHoleSearchBytesMin) return;
  request.chunks[0].is_hole = is_zero(request.target());
}

}  // namespace

uint64_t payload_bytes_of(const RequestHeader& header) {
  switch (header.command) {
    case Command::kRead:
    case Command::kWrite:
      return header.length;
    case Command::kBlockStatus:
      return size_t{kDescriptorsMax} * kBlockDescriptorBytes;
    case Command::kCache:
      return kCachePieceBytes;
    default:
      return 0;
  }
}

Task<void> perform(DeviceQueue& queue, Request& request, ReplyWriter* writer) {
  GuestOffset offset(request.header.offset);
  if (request.header.command == Command::kRead && !request.seeks_holes) {
    if (request.header.length != 0)
      add_chunk(request, offset.value(), request.header.length, false);
    MutableBuffers target(request.target());
    Result<void> done = co_await queue.read(offset, target).result();
    request.set_outcome(done);
    if (done.ok()) leave_out_zeros(request);
  } else if (request.header.command == Command::kWrite) {
    WriteOptions options;
    options.fua = (request.header.flags & kCommandFua) != 0;
    ConstBuffers source(request.source);
    Result<void> done = co_await queue.write(offset, source, options).result();
    request.set_outcome(done);
  } else {
    Result<void> done = co_await perform_rarer(queue, request).result();
    request.set_outcome(done);
  }
  if (writer) writer->add(request);
}

}  // namespace ringdisk::nbd
