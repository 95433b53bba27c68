// SPDX-License-Identifier: Apache-2.0
// Binding, accepting and connecting. What may block (name look-up, connect) runs in the blocking
// pool.
#include "runtime/socket_network.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <vector>

#include "base/diagnostics.h"
#include "runtime/shard.h"
#include "runtime/socket_stream.h"

namespace ringdisk {
namespace {

constexpr int kBacklog = 128;
// Room for a batch of requests or replies without a stop in between.
constexpr int kSocketBufferBytes = 1 << 20;

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  int family = 0;
  // why: the sockets interface takes all address kinds through this one type
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

class SocketConnection final : public Connection {
 public:
  SocketConnection(FileDescriptor socket, std::string peer)
      : socket_(std::move(socket)), peer_(std::move(peer)) {}
  std::unique_ptr<Stream> open_stream(Shard& shard) override {
    return make_socket_stream(std::move(socket_), shard);
  }
  std::string peer_name() const override { return peer_; }

 private:
  FileDescriptor socket_;
  std::string peer_;
};

void tune_socket(int fd, int family) {
  // Failing to tune costs speed alone.
  const int one = 1;
  if (family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (family == AF_UNIX) {
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kSocketBufferBytes, sizeof kSocketBufferBytes);
  }
}

std::string name_of_peer(const SocketAddress& address) {
  if (address.family == AF_UNIX) return "unix";
  char host[NI_MAXHOST], port[NI_MAXSERV];
  int failed = getnameinfo(address.get(), address.length, host, sizeof host, port, sizeof port,
                           NI_NUMERICHOST | NI_NUMERICSERV);
  return failed ? "tcp" : std::string(host) + ":" + port;
}

// Which file is at the path of a unix socket; zeros where there is none.
struct FileIdentity {
  explicit FileIdentity(const Address& address) {
    struct stat found {};
    auto* at = std::get_if<UnixAddress>(&address);
    if (!at || stat(at->path.c_str(), &found) != 0) return;
    device = found.st_dev;
    inode = found.st_ino;
  }
  bool operator==(const FileIdentity&) const = default;
  dev_t device = 0;
  ino_t inode = 0;
};

// Takes its socket away at the end, unless somebody has put another one in its place.
class SocketListener final : public Listener {
 public:
  SocketListener(FileDescriptor socket, Address address)
      : socket_(std::move(socket)), address_(std::move(address)), made_(address_) {}
  ~SocketListener() override {
    auto* at = std::get_if<UnixAddress>(&address_);
    if (at && FileIdentity(address_) == made_) unlink(at->path.c_str());
  }
  Task<std::unique_ptr<Connection>> accept(CancelToken token) override;
  Address address() const override { return address_; }

 private:
  FileDescriptor socket_;
  const Address address_;
  const FileIdentity made_;
};

// The kernel looks for a free descriptor before it looks for a client: that there is none is told
// only when somebody waits.
Task<std::unique_ptr<Connection>> SocketListener::accept(CancelToken token) {
  bool somebody_waits = false;
  for (;;) {
    if (token.is_cancelled()) co_return Error::of(ErrorKind::kCancelled, "accept");
    SocketAddress peer;
    peer.length = sizeof peer.storage;
    // why: the sockets interface takes all address kinds through this one type
    auto* storage = reinterpret_cast<sockaddr*>(&peer.storage);
    int fd = accept4(socket_.get(), storage, &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      peer.family = peer.storage.ss_family;
      tune_socket(fd, peer.family);
      std::unique_ptr<Connection> connection =
          std::make_unique<SocketConnection>(FileDescriptor(fd), name_of_peer(peer));
      co_return std::move(connection);
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    const bool is_out_of_files = errno == EMFILE || errno == ENFILE;
    const bool waits = errno == EAGAIN || (is_out_of_files && !somebody_waits);
    if (!waits) co_return Error::from_errno(errno, "accept");
    co_await wait_until_ready(Shard::current(), socket_.get(), IoOpcode::kPollIn, token);
    somebody_waits = true;
  }
}

// One name may lead to several addresses; they are tried in order.
using SocketAddresses = std::vector<SocketAddress>;

Result<SocketAddresses> resolve_unix(const UnixAddress& address, Diagnostics& diagnostics) {
  SocketAddress resolved;
  sockaddr_un name{};
  if (address.path.empty() || address.path.size() >= sizeof name.sun_path) {
    return diagnostics.explain(
        Error::from_errno(ENAMETOOLONG, "socket"),
        "the path of a unix socket has 1 to 107 bytes: '" + address.path + "'");
  }
  name.sun_family = AF_UNIX;
  address.path.copy(name.sun_path, address.path.size());
  std::memcpy(&resolved.storage, &name, sizeof name);
  resolved.length = sizeof name;
  resolved.family = AF_UNIX;
  return SocketAddresses{resolved};
}

Result<SocketAddresses> resolve_tcp(Blocking, const TcpAddress& address, bool to_listen,
                                    Diagnostics& diagnostics) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (to_listen ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  std::string port = std::to_string(address.port);
  int failed = getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(), port.c_str(),
                           &hints, &found);
  if (failed) {
    return diagnostics.explain(Error::of(ErrorKind::kNotFound, "resolve"),
                               "host '" + address.host + "': " + gai_strerror(failed));
  }
  SocketAddresses resolved;
  for (const addrinfo* one = found; one; one = one->ai_next) {
    SocketAddress& next = resolved.emplace_back();
    std::memcpy(&next.storage, one->ai_addr, one->ai_addrlen);
    next.length = one->ai_addrlen;
    next.family = one->ai_family;
  }
  freeaddrinfo(found);
  // Every local address: a socket of IPv6 takes IPv4 too (bind_to), so it goes first.
  if (to_listen && address.host.empty()) {
    std::stable_partition(resolved.begin(), resolved.end(),
                          [](const SocketAddress& one) { return one.family == AF_INET6; });
  }
  return resolved;
}

Result<SocketAddresses> resolve(Blocking token, const Address& address, bool to_listen,
                                Diagnostics& diagnostics) {
  if (auto* at = std::get_if<UnixAddress>(&address)) return resolve_unix(*at, diagnostics);
  return resolve_tcp(token, std::get<TcpAddress>(address), to_listen, diagnostics);
}

// Whether what is at `path` is a socket's file, left over from a process that is gone. (Connecting
// to a regular file is refused too; that one is somebody's data.)
bool is_stale(const std::string& path, const SocketAddress& address) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  // Without waiting: a server that is merely behind with accepting says EAGAIN.
  FileDescriptor probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return probe.get() >= 0 && connect(probe.get(), address.get(), address.length) < 0 &&
         errno == ECONNREFUSED;
}

Result<void> bind_to(int fd, const SocketAddress& address, const Address& asked) {
  const int one = 1;
  const int off = 0;
  if (address.family != AF_UNIX) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (address.family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (bind(fd, address.get(), address.length) == 0) return {};
  const int errno_value = errno;
  auto* at = std::get_if<UnixAddress>(&asked);
  if (errno_value != EADDRINUSE || !at || !is_stale(at->path, address)) {
    return Error::from_errno(errno_value, "bind");
  }
  unlink(at->path.c_str());
  if (bind(fd, address.get(), address.length) == 0) return {};
  return Error::from_errno(errno, "bind");
}

// The address with the port that the system chose.
Address with_real_port(int fd, Address address) {
  auto* tcp = std::get_if<TcpAddress>(&address);
  if (!tcp || tcp->port != 0) return address;
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  // why: the sockets interface takes all address kinds through this one type
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) != 0) return address;
  in_port_t port = 0;  // at the same place in both families' structures
  static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
  std::memcpy(
      &port,
      reinterpret_cast<const char*>(&bound) + offsetof(sockaddr_in, sin_port),  // why: as above
      sizeof port);
  tcp->port = ntohs(port);
  return address;
}

Result<FileDescriptor> listen_on(const SocketAddress& address, const Address& asked) {
  FileDescriptor fd(socket(address.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return Error::from_errno(errno, "socket");
  RETURN_IF_ERROR(bind_to(fd.get(), address, asked));
  if (::listen(fd.get(), kBacklog) < 0) return Error::from_errno(errno, "listen");
  return fd;
}

Result<FileDescriptor> connect_to(const SocketAddress& address, const Address&) {
  FileDescriptor fd(socket(address.family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return Error::from_errno(errno, "socket");
  if (::connect(fd.get(), address.get(), address.length) < 0) {
    return Error::from_errno(errno, "connect");
  }
  if (fcntl(fd.get(), F_SETFL, O_NONBLOCK) < 0) return Error::from_errno(errno, "connect");
  tune_socket(fd.get(), address.family);
  return fd;
}

// The first of the addresses that `open_one` can use; else the error of the first, which is the one
// that was meant.
Result<FileDescriptor> open_first(const SocketAddresses& addresses, const Address& asked,
                                  Result<FileDescriptor> (*open_one)(const SocketAddress&,
                                                                     const Address&)) {
  Result<FileDescriptor> first = open_one(addresses.front(), asked);
  for (size_t i = 1; !first.ok() && i < addresses.size(); ++i) {
    Result<FileDescriptor> next = open_one(addresses[i], asked);
    if (next.ok()) return next;
  }
  return first;
}

Result<std::unique_ptr<Listener>> open_listener(Blocking token, const Address& address,
                                                Diagnostics& diagnostics) {
  ASSIGN_OR_RETURN(SocketAddresses resolved, resolve(token, address, true, diagnostics));
  Result<FileDescriptor> fd = open_first(resolved, address, &listen_on);
  if (!fd.ok()) {
    return diagnostics.explain(fd.error(), "cannot listen on " + text_of(address) + ": " +
                                               errno_text(fd.error().errno_value));
  }
  Address real = with_real_port(fd.value().get(), address);
  return std::unique_ptr<Listener>(
      std::make_unique<SocketListener>(std::move(fd).value(), std::move(real)));
}

Result<std::unique_ptr<Connection>> open_connection(Blocking token, const Address& address,
                                                    Diagnostics& diagnostics) {
  ASSIGN_OR_RETURN(SocketAddresses resolved, resolve(token, address, false, diagnostics));
  Result<FileDescriptor> fd = open_first(resolved, address, &connect_to);
  if (!fd.ok()) {
    return diagnostics.explain(fd.error(), "cannot connect to " + text_of(address) + ": " +
                                               errno_text(fd.error().errno_value));
  }
  return std::unique_ptr<Connection>(
      std::make_unique<SocketConnection>(std::move(fd).value(), text_of(address)));
}

}  // namespace

Task<std::unique_ptr<Listener>> SocketNetwork::listen(Address address) {
  auto open_it = [&](Blocking token) { return open_listener(token, address, diagnostics_); };
  co_return co_await run_blocking(blocking_, open_it).result();
}

Task<std::unique_ptr<Connection>> SocketNetwork::connect(Address address) {
  auto open_it = [&](Blocking token) { return open_connection(token, address, diagnostics_); };
  co_return co_await run_blocking(blocking_, open_it).result();
}

std::string text_of(const Address& address) {
  if (auto* at = std::get_if<UnixAddress>(&address)) return "unix:" + at->path;
  const auto& tcp = std::get<TcpAddress>(address);
  bool is_v6 = tcp.host.find(':') != std::string::npos;
  return "tcp:" + (is_v6 ? "[" + tcp.host + "]" : tcp.host) + ":" + std::to_string(tcp.port);
}

Result<Address> parse_address(std::string_view text, Diagnostics& diagnostics) {
  auto refuse = [&] {
    return diagnostics.explain(
        Error::of(ErrorKind::kInvalid, "address"),
        "'" + std::string(text) +
            "' is no address; write unix:PATH, tcp:HOST:PORT or tcp:[IPV6]:PORT");
  };
  if (text.starts_with("unix:") && text.size() > 5) {
    return Address(UnixAddress{std::string(text.substr(5))});
  }
  if (!text.starts_with("tcp:")) return refuse();
  std::string_view rest = text.substr(4);
  size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return refuse();
  std::string_view host = rest.substr(0, colon), digits = rest.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  TcpAddress tcp{std::string(host), 0};
  auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), tcp.port);
  if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
    return refuse();
  }
  return Address(tcp);
}

}  // namespace ringdisk
