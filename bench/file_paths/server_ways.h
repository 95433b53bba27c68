// SPDX-License-Identifier: Apache-2.0
//
// The ways bytes can reach a stream socket: one single-threaded server that answers fixed-size
// requests with fixed-size replies (NBD's shape), written once for each way of waiting, receiving
// and sending. What the ways share is Connection; where they differ is who makes the system call.
//
//   poll, epoll         wait there; recv and sendmsg without blocking, in place
//   ring poll           the same, waiting with a multishot POLL_ADD
//   ring poll once      the same, waiting with a POLL_ADD for each wait
//   … spin              epoll and ring poll, asking for 50 us before they sleep
//   ring recv           RECV on the ring, sendmsg in place (POLL_ADD when the socket is full)
//   ring recv + send    RECV and SENDMSG on the ring
//   … fixed             the same with registered files
//   … multishot         the same, one multishot RECV into provided buffers
//
// All rings are SINGLE_ISSUER | DEFER_TASKRUN.

#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ringdisk::bench {

struct Exchange {
  uint32_t request_bytes = 28;
  uint32_t reply_header_bytes = 16;
  uint32_t reply_payload_bytes = 4096;

  uint32_t reply_bytes() const { return reply_header_bytes + reply_payload_bytes; }
};

// The server's end of one stream: what came in so far, what is still to go out.
class Connection {
 public:
  Connection(int socket, const Exchange& exchange);

  int socket() const { return socket_; }
  std::byte* inbox() { return inbox_.data(); }
  uint32_t inbox_bytes() const { return static_cast<uint32_t>(inbox_.size()); }

  // Bytes came in: every request that is now whole becomes a reply to send.
  void received(uint32_t bytes);
  bool has_output() const { return replies_ != 0; }
  // The output as one message, header and payload of each reply apart, 64 replies at most.
  msghdr* output();
  void sent(uint32_t bytes);

  bool open = true;      // false once the peer has closed
  bool sending = false;  // used by the ways that send on the ring

 private:
  const int socket_;
  const Exchange exchange_;
  std::vector<std::byte> inbox_;
  std::vector<std::byte> reply_;
  uint32_t request_part_ = 0;  // bytes of the request that has not come whole
  uint32_t replies_ = 0;       // not wholly sent
  uint32_t reply_part_ = 0;    // bytes of the first of them that are sent
  std::array<iovec, 128> pieces_{};
  msghdr message_{};
};

// Serves until every peer has closed. 0 or an errno.
int serve(const std::string& way, std::vector<Connection>& connections);

// Every name serve() knows.
const std::vector<std::string>& server_way_names();

}  // namespace ringdisk::bench
