// SPDX-License-Identifier: Apache-2.0
//
// The servers of server_ways.h.

#include "server_ways.h"

#include <liburing.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "cell.h"

namespace ringdisk::bench {

namespace {

constexpr uint32_t kInboxBytes = 64 << 10;
constexpr unsigned kRingEntries = 256;
constexpr double kSpinSeconds = 50e-6;
constexpr unsigned kRingSetup = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;

// Sends what it can; true while output is left because the socket is full.
bool send_in_place(Connection& connection) {
  while (connection.has_output()) {
    const ssize_t sent =
        sendmsg(connection.socket(), connection.output(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN) return true;
      connection.open = false;
      return false;
    }
    connection.sent(static_cast<uint32_t>(sent));
  }
  return false;
}

// Sends what is left, receives and answers what has come; true while the socket is full. A recv
// that does not fill the inbox has emptied the socket: what comes later wakes even an
// edge-triggered wait.
bool serve_in_place(Connection& connection) {
  if (send_in_place(connection)) return true;
  while (connection.open) {
    const ssize_t bytes =
        recv(connection.socket(), connection.inbox(), connection.inbox_bytes(), MSG_DONTWAIT);
    if (bytes < 0 && errno == EAGAIN) return false;
    connection.open = bytes > 0;
    if (!connection.open) return false;
    connection.received(static_cast<uint32_t>(bytes));
    if (send_in_place(connection)) return true;
    if (static_cast<uint32_t>(bytes) < connection.inbox_bytes()) return false;
  }
  return false;
}

// Asks again and again for a while; true when `ask` was.
template <typename Ask>
bool spin_until(Ask ask) {
  const double end = now_seconds() + kSpinSeconds;
  do {
    if (ask()) return true;
  } while (now_seconds() < end);
  return false;
}

int serve_by_poll(std::vector<Connection>& connections) {
  std::vector<pollfd> waits;
  for (const Connection& connection : connections) {
    waits.push_back({.fd = connection.socket(), .events = POLLIN, .revents = 0});
  }
  for (size_t open = waits.size(); open > 0;) {
    poll(waits.data(), waits.size(), -1);
    for (size_t i = 0; i < waits.size(); ++i) {
      if (waits[i].revents == 0) continue;
      waits[i].events = serve_in_place(connections[i]) ? POLLOUT : POLLIN;
      if (connections[i].open) continue;
      waits[i].fd = -1;
      --open;
    }
  }
  return 0;
}

int serve_by_epoll(std::vector<Connection>& connections, bool spins) {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  const auto watch = [epoll](int change, Connection& connection, uint32_t events) {
    epoll_event event{.events = events, .data = {.ptr = &connection}};
    epoll_ctl(epoll, change, connection.socket(), &event);
  };
  for (Connection& connection : connections) watch(EPOLL_CTL_ADD, connection, EPOLLIN);
  std::array<epoll_event, 64> events;
  for (size_t open = connections.size(); open > 0;) {
    int count = 0;
    const auto ask = [&](int timeout_ms) {
      count = epoll_wait(epoll, events.data(), events.size(), timeout_ms);
      return count != 0;
    };
    if (!spins || !spin_until([&] { return ask(0); })) ask(-1);
    for (int i = 0; i < count; ++i) {
      Connection& connection = *static_cast<Connection*>(events[static_cast<size_t>(i)].data.ptr);
      const bool was_full = connection.has_output();
      const bool full = serve_in_place(connection);
      if (full != was_full) watch(EPOLL_CTL_MOD, connection, full ? EPOLLOUT : EPOLLIN);
      if (connection.open) continue;
      watch(EPOLL_CTL_DEL, connection, 0);
      --open;
    }
  }
  close(epoll);
  return 0;
}

// What a completion is about, in the low bits of its user_data.
enum class Wait : uint64_t { kIn, kOut, kSend };

// A ring and the loop around it. arm_… says what is waited for, completed() answers it.
class RingServer {
 public:
  explicit RingServer(std::vector<Connection>& connections, bool spins = false)
      : connections_(connections), spins_(spins) {}
  virtual ~RingServer() { io_uring_queue_exit(&ring_); }

  int serve() {
    const int status = io_uring_queue_init(kRingEntries, &ring_, kRingSetup);
    if (status < 0) return -status;
    const int error = start();
    if (error != 0) return error;
    for (Connection& connection : connections_) arm_input(connection);
    for (size_t open = connections_.size(); open > 0;) {
      if (!spins_ || !spin_until([this] { return has_completion(); })) {
        io_uring_submit_and_wait(&ring_, 1);
      }
      io_uring_cqe* cqe = nullptr;
      unsigned head = 0;
      unsigned count = 0;
      io_uring_for_each_cqe(&ring_, head, cqe) {
        ++count;
        Connection& connection = connections_[cqe->user_data >> 2];
        if (!connection.open) continue;
        completed(connection, static_cast<Wait>(cqe->user_data & 3), *cqe);
        open -= connection.open ? 0 : 1;
      }
      io_uring_cq_advance(&ring_, count);
    }
    return 0;
  }

 protected:
  virtual int start() { return 0; }
  virtual void arm_input(Connection& connection) = 0;
  virtual void completed(Connection& connection, Wait wait, const io_uring_cqe& cqe) = 0;

  uint64_t index_of(const Connection& connection) const {
    return static_cast<uint64_t>(&connection - connections_.data());
  }

  io_uring_sqe* entry() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) std::abort();  // entries far outnumber connections
    return sqe;
  }

  void name(io_uring_sqe* sqe, const Connection& connection, Wait wait) {
    sqe->user_data = index_of(connection) << 2 | static_cast<uint64_t>(wait);
  }

  void arm_poll(const Connection& connection, Wait wait, bool multishot) {
    const unsigned events = wait == Wait::kIn ? POLLIN : POLLOUT;
    io_uring_sqe* sqe = entry();
    io_uring_prep_poll_add(sqe, connection.socket(), events);
    if (multishot) sqe->len = IORING_POLL_ADD_MULTI;
    name(sqe, connection, wait);
  }

  std::vector<Connection>& connections_;
  io_uring ring_{};

 private:
  bool has_completion() {
    io_uring_submit_and_get_events(&ring_);
    return io_uring_cq_ready(&ring_) != 0;
  }

  const bool spins_;
};

class RingPollServer : public RingServer {
 public:
  RingPollServer(std::vector<Connection>& connections, bool multishot, bool spins)
      : RingServer(connections, spins), multishot_(multishot) {}

 private:
  void arm_input(Connection& connection) override { arm_poll(connection, Wait::kIn, multishot_); }

  void completed(Connection& connection, Wait wait, const io_uring_cqe& cqe) override {
    const bool ended = wait == Wait::kIn && (cqe.flags & IORING_CQE_F_MORE) == 0;
    if (wait == Wait::kOut) connection.sending = false;
    if (!connection.sending) {  // else the end of the wait for room will see this input too
      connection.sending = serve_in_place(connection);
      if (connection.sending) arm_poll(connection, Wait::kOut, false);
    }
    if (!connection.open) return;
    if (multishot_ ? ended : !connection.sending) arm_input(connection);
  }

  const bool multishot_;
};

struct RingRecvOptions {
  bool ring_send = true;
  bool fixed = false;
  bool multishot = false;
};

class RingRecvServer : public RingServer {
 public:
  RingRecvServer(std::vector<Connection>& connections, const RingRecvOptions& options)
      : RingServer(connections), options_(options) {}

 private:
  static constexpr unsigned kBuffers = 64;  // of kInboxBytes each; a power of two
  static constexpr int kGroup = 1;

  int start() override {
    if (options_.fixed) {
      std::vector<int> sockets;
      for (const Connection& connection : connections_) sockets.push_back(connection.socket());
      const auto count = static_cast<unsigned>(sockets.size());
      const int status = io_uring_register_files(&ring_, sockets.data(), count);
      if (status < 0) return -status;
    }
    if (!options_.multishot) return 0;
    memory_.resize(size_t{kBuffers} * kInboxBytes);
    const size_t size = kBuffers * sizeof(io_uring_buf);
    buffers_ = static_cast<io_uring_buf_ring*>(std::aligned_alloc(4096, std::max(size, 4096ul)));
    io_uring_buf_ring_init(buffers_);
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<uint64_t>(buffers_);
    registration.ring_entries = kBuffers;
    registration.bgid = kGroup;
    for (unsigned i = 0; i < kBuffers; ++i) give_back(i);
    return -io_uring_register_buf_ring(&ring_, &registration, 0);
  }

  void give_back(unsigned buffer) {
    std::byte* memory = memory_.data() + size_t{buffer} * kInboxBytes;
    io_uring_buf_ring_add(buffers_, memory, kInboxBytes, static_cast<uint16_t>(buffer),
                          io_uring_buf_ring_mask(kBuffers), 0);
    io_uring_buf_ring_advance(buffers_, 1);
  }

  int file_of(const Connection& connection) const {
    return options_.fixed ? static_cast<int>(index_of(connection)) : connection.socket();
  }

  void mark_fixed(io_uring_sqe* sqe) const {
    if (options_.fixed) sqe->flags |= IOSQE_FIXED_FILE;
  }

  void arm_input(Connection& connection) override {
    io_uring_sqe* sqe = entry();
    if (options_.multishot) {
      io_uring_prep_recv_multishot(sqe, file_of(connection), nullptr, 0, 0);
      sqe->flags |= IOSQE_BUFFER_SELECT;
      sqe->buf_group = kGroup;
    } else {
      io_uring_prep_recv(sqe, file_of(connection), connection.inbox(), connection.inbox_bytes(), 0);
    }
    mark_fixed(sqe);
    name(sqe, connection, Wait::kIn);
  }

  void send(Connection& connection) {
    if (connection.sending || !connection.has_output()) return;
    if (!options_.ring_send) {
      connection.sending = send_in_place(connection);
      if (connection.sending) arm_poll(connection, Wait::kOut, false);
      return;
    }
    connection.sending = true;
    io_uring_sqe* sqe = entry();
    io_uring_prep_sendmsg(sqe, file_of(connection), connection.output(),
                          MSG_NOSIGNAL | MSG_WAITALL);
    mark_fixed(sqe);
    name(sqe, connection, Wait::kSend);
  }

  void completed(Connection& connection, Wait wait, const io_uring_cqe& cqe) override {
    if (wait == Wait::kIn) {
      if (options_.multishot && (cqe.flags & IORING_CQE_F_BUFFER) != 0) {
        give_back(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
      }
      connection.open = cqe.res > 0 || cqe.res == -ENOBUFS;
      if (!connection.open) return;
      connection.received(static_cast<uint32_t>(std::max(cqe.res, 0)));
      if ((cqe.flags & IORING_CQE_F_MORE) == 0) arm_input(connection);
    } else {
      connection.sending = false;
      if (wait == Wait::kSend) connection.open = cqe.res >= 0;
      if (wait == Wait::kSend && cqe.res > 0) connection.sent(static_cast<uint32_t>(cqe.res));
    }
    if (connection.open) send(connection);
  }

  const RingRecvOptions options_;
  std::vector<std::byte> memory_;
  io_uring_buf_ring* buffers_ = nullptr;  // kept to the end of the process, with the cell
};

}  // namespace

Connection::Connection(int socket, const Exchange& exchange)
    : socket_(socket), exchange_(exchange), inbox_(kInboxBytes), reply_(exchange.reply_bytes()) {}

void Connection::received(uint32_t bytes) {
  const uint32_t all = request_part_ + bytes;
  replies_ += all / exchange_.request_bytes;
  request_part_ = all % exchange_.request_bytes;
}

msghdr* Connection::output() {
  size_t count = 0;
  uint32_t skip = reply_part_;
  for (uint32_t reply = 0; reply < replies_ && count + 2 <= pieces_.size(); ++reply) {
    const uint32_t header = exchange_.reply_header_bytes;
    const uint32_t whole = exchange_.reply_bytes();
    if (skip < header) pieces_[count++] = {reply_.data() + skip, header - skip};
    const uint32_t from = std::max(skip, header);
    if (from < whole) pieces_[count++] = {reply_.data() + from, whole - from};
    skip = 0;
  }
  message_.msg_iov = pieces_.data();  // here, for a Connection may have been moved
  message_.msg_iovlen = count;
  return &message_;
}

void Connection::sent(uint32_t bytes) {
  const uint32_t all = reply_part_ + bytes;
  replies_ -= all / exchange_.reply_bytes();
  reply_part_ = all % exchange_.reply_bytes();
}

int serve(const std::string& way, std::vector<Connection>& connections) {
  if (way == "poll") return serve_by_poll(connections);
  const bool spins = way.ends_with("spin");
  const bool once = way.find("once") != std::string::npos;
  if (way.starts_with("epoll")) return serve_by_epoll(connections, spins);
  if (way.starts_with("ring poll")) return RingPollServer(connections, !once, spins).serve();
  RingRecvOptions options;
  options.ring_send = way.starts_with("ring recv + send");
  options.fixed = way.find("fixed") != std::string::npos;
  options.multishot = way.find("multishot") != std::string::npos;
  return RingRecvServer(connections, options).serve();
}

const std::vector<std::string>& server_way_names() {
  static const std::vector<std::string> names{"poll",
                                              "epoll",
                                              "ring poll",
                                              "ring poll once",
                                              "epoll spin",
                                              "ring poll once spin",
                                              "ring recv",
                                              "ring recv + send",
                                              "ring recv + send fixed",
                                              "ring recv + send multishot"};
  return names;
}

}  // namespace ringdisk::bench
