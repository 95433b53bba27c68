// SPDX-License-Identifier: Apache-2.0
// The makers of IoRequests.
#include "runtime/loop.h"

namespace ringdisk {

IoRequest::IoRequest(const IoRequest& other)
    : opcode(other.opcode),
      dsync(other.dsync),
      may_block(other.may_block),
      fd(other.fd),
      fixed_file(other.fixed_file),
      fixed_buffer(other.fixed_buffer),
      parts(other.parts),
      part_count(other.part_count),
      single(other.single),
      offset(other.offset),
      length(other.length),
      mode(other.mode) {
  CHECK(!other.is_linked());
}

IoRequest IoRequest::readv(int fd, const iovec* parts, uint32_t count, uint64_t offset) {
  IoRequest request(IoOpcode::kReadv, fd);
  request.parts = parts;
  request.part_count = count;
  request.offset = offset;
  return request;
}

IoRequest IoRequest::writev(int fd, const iovec* parts, uint32_t count, uint64_t offset) {
  IoRequest request = readv(fd, parts, count, offset);
  request.opcode = IoOpcode::kWritev;
  return request;
}

IoRequest IoRequest::read(int fd, MutableBytes target, uint64_t offset) {
  IoRequest request(IoOpcode::kReadv, fd);
  request.single = {target.data(), target.size()};
  request.offset = offset;
  return request;
}

IoRequest IoRequest::write(int fd, Bytes source, uint64_t offset) {
  IoRequest request(IoOpcode::kWritev, fd);
  request.single = {const_cast<std::byte*>(source.data()), source.size()};
  request.offset = offset;
  return request;
}

IoRequest IoRequest::sync(int fd) { return IoRequest(IoOpcode::kSync, fd); }

IoRequest IoRequest::allocate(int fd, int mode, uint64_t offset, uint64_t length) {
  IoRequest request(IoOpcode::kAllocate, fd);
  request.mode = mode;
  request.offset = offset;
  request.length = length;
  return request;
}

IoRequest IoRequest::poll(int fd, IoOpcode in_or_out) { return IoRequest(in_or_out, fd); }

}  // namespace ringdisk
