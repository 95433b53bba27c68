// SPDX-License-Identifier: Apache-2.0
// Composing replies. Where structured replies are agreed on, reads, block status and errors use
// them, and success without payload is a simple reply, which is shorter ("Structured reply chunk
// message" allows it).
#include "nbd/reply.h"

namespace ringdisk::nbd {
namespace {

// Appends parts and finds room for headers.
class ReplyComposer {
 public:
  explicit ReplyComposer(Request& request) : request_(request) {
    request_.part_count = 0;
    request_.reply_bytes = 0;
  }
  MutableBytes room() { return MutableBytes(request_.reply_headers).subspan(used_); }
  void add_header(Bytes written) {
    used_ += written.size();
    add(written);
  }
  void add(Bytes part) {
    if (part.empty()) return;
    CHECK_LT(request_.part_count, 2 * kReadChunksMax);
    iovec& entry = request_.parts[request_.part_count++];
    entry.iov_base = const_cast<std::byte*>(part.data());
    entry.iov_len = part.size();
    request_.reply_bytes += part.size();
  }

 private:
  Request& request_;
  size_t used_ = 0;
};

void compose_error(Request& request, ReplyComposer& reply) {
  uint64_t cookie = request.header.cookie;
  if (!request.structured) {
    reply.add_header(encode_simple_reply(reply.room(), cookie, request.error));
    return;
  }
  reply.add_header(
      encode_error_chunk_header(reply.room(), cookie, request.error, request.message.size()));
  reply.add(as_bytes(request.message));
}

void compose_structured_read(Request& request, ReplyComposer& reply) {
  uint64_t cookie = request.header.cookie;
  if (request.chunk_count == 0) {  // an empty read: a data chunk may not be empty
    reply.add_header(encode_none_chunk(reply.room(), cookie));
    return;
  }
  for (uint32_t i = 0; i < request.chunk_count; ++i) {
    const ReadChunk& chunk = request.chunks[i];
    bool is_last = i + 1 == request.chunk_count;
    if (chunk.is_hole) {
      reply.add_header(
          encode_offset_hole(reply.room(), cookie, chunk.offset, chunk.length, is_last));
      continue;
    }
    reply.add_header(
        encode_offset_data_header(reply.room(), cookie, chunk.offset, chunk.length, is_last));
    reply.add(request.target().subspan(chunk.offset - request.header.offset, chunk.length));
  }
}

// A chunk for each context that was selected.
void compose_block_status(Request& request, ReplyComposer& reply) {
  const StatusContexts& contexts = *request.contexts;
  for (uint32_t i = 0; i < contexts.count; ++i) {
    const uint32_t count = request.descriptor_counts[i];
    reply.add_header(encode_block_status_header(reply.room(), request.header.cookie,
                                                contexts.selected[i].id, count,
                                                i + 1 == contexts.count));
    reply.add(request.descriptors_of(i).first(count * kBlockDescriptorBytes));
  }
}

}  // namespace

void compose_reply(Request& request) {
  ReplyComposer reply(request);
  bool is_read = request.header.command == Command::kRead;
  if (request.error != WireError::kNone) {
    compose_error(request, reply);
  } else if (is_read && request.structured) {
    compose_structured_read(request, reply);
  } else if (request.header.command == Command::kBlockStatus) {
    compose_block_status(request, reply);
  } else {
    reply.add_header(encode_simple_reply(reply.room(), request.header.cookie, WireError::kNone));
    if (is_read && request.header.length != 0) reply.add(request.target());
  }
}

}  // namespace ringdisk::nbd
