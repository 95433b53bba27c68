// SPDX-License-Identifier: Apache-2.0
// The real network: unix and TCP sockets of this machine, on both loops.
#include "runtime/socket_network.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <vector>

#include "async/yield.h"
#include "base/random.h"
#include "runtime/real_loops_test.h"

namespace ringdisk {
namespace {

using std::chrono::milliseconds;

class SocketNetworkTest : public RealLoopsTest {
 protected:
  TemporaryFolder folder;
  Address unix_address(const char* name = "socket") { return UnixAddress{folder / name}; }
  static Address tcp_address() { return TcpAddress{"127.0.0.1", 0}; }
};

// Sends back what comes, until the peer closes.
Task<void> echo(Stream& stream) {
  std::vector<std::byte> memory(60'000);
  for (;;) {
    size_t got = co_await stream.read_some(memory, CancelToken());
    if (got == 0) co_return;
    co_await stream.write_all(ConstBuffers(Bytes(memory).first(got)), CancelToken());
  }
}
Task<void> read_exactly(Stream& stream, MutableBytes target) {
  for (size_t done = 0; done < target.size();) {
    size_t got = co_await stream.read_some(target.subspan(done), CancelToken());
    if (got == 0) co_await fail(Error::of(ErrorKind::kProtocol, "read exactly"));
    done += got;
  }
}
Task<void> write_and_close(Stream& stream, ConstBuffers source) {
  co_await stream.write_all(source, CancelToken());
}

std::vector<std::byte> noise(uint64_t seed, size_t length) {
  Random random(seed);
  std::vector<std::byte> bytes(length);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
  return bytes;
}

// `megabytes` through a connection and back; more than the sockets hold, so that both ends wait.
Task<void> echo_through(Network& network, Address address, size_t bytes) {
  std::unique_ptr<Listener> listener = co_await network.listen(address);
  Shard& home = Shard::current();
  auto server = [&]() -> Task<void> {
    std::unique_ptr<Connection> connection = co_await listener->accept(CancelToken());
    std::unique_ptr<Stream> stream = connection->open_stream(home);
    co_await echo(*stream);
  };
  auto client = [&]() -> Task<void> {
    std::unique_ptr<Connection> connection = co_await network.connect(listener->address());
    std::unique_ptr<Stream> stream = connection->open_stream(home);
    std::vector<std::byte> sent = noise(bytes, bytes), received(bytes);
    // In three unequal pieces of memory.
    const iovec parts[] = {{sent.data(), 1},
                           {sent.data() + 1, bytes / 3},
                           {sent.data() + 1 + bytes / 3, bytes - 1 - bytes / 3}};
    ConstBuffers source(parts, 3);
    auto both = [&](size_t i) {
      return i == 0 ? write_and_close(*stream, source) : read_exactly(*stream, received);
    };
    co_await when_all(2, both);
    EXPECT_EQ(received, sent);
  };
  auto both = [&](size_t i) { return i == 0 ? server() : client(); };
  co_await when_all(2, both);
}

TEST_P(SocketNetworkTest, MegabytesGoThroughAUnixSocketAndBack) {
  auto body = [&](Shard&) { return echo_through(network(), unix_address(), 8 << 20); };
  Result<void> done = run(1, body);
  EXPECT_TRUE(done.ok()) << diagnostics().describe(done.error());
}
TEST_P(SocketNetworkTest, MegabytesGoThroughTcpAndBack) {
  auto body = [&](Shard&) { return echo_through(network(), tcp_address(), 8 << 20); };
  Result<void> done = run(1, body);
  EXPECT_TRUE(done.ok()) << diagnostics().describe(done.error());
}

TEST_P(SocketNetworkTest, ConnectionsAreServedByOtherShards) {
  std::atomic<int> served = 0;
  auto body = [&](Shard&) -> Task<void> {
    std::unique_ptr<Listener> listener = co_await network().listen(tcp_address());
    auto serve_one = [&](std::unique_ptr<Connection> connection, Shard& there) -> Task<void> {
      auto serve = [&]() -> Task<void> {
        std::unique_ptr<Stream> stream = connection->open_stream(there);
        co_await echo(*stream);
        ++served;
      };
      co_await there.call(serve);
    };
    auto serve_all = [&](Scope& scope) -> Task<void> {
      for (size_t index = 0; index < 20; ++index) {
        std::unique_ptr<Connection> connection = co_await listener->accept(CancelToken());
        scope.spawn(serve_one(std::move(connection), shard(index % shard_count())));
      }
    };
    auto serve = [&]() -> Task<void> { co_await with_scope(serve_all); };
    auto use_one = [&](size_t index) -> Task<void> {
      std::unique_ptr<Connection> connection = co_await network().connect(listener->address());
      std::unique_ptr<Stream> stream = connection->open_stream(Shard::current());
      std::vector<std::byte> sent = noise(index, 100'000), received(100'000);
      co_await stream->write_all(ConstBuffers(Bytes(sent).first(1000)), CancelToken());
      co_await read_exactly(*stream, MutableBytes(received).first(1000));
      EXPECT_TRUE(std::equal(sent.begin(), sent.begin() + 1000, received.begin()));
    };
    auto all = [&](size_t i) { return i == 0 ? serve() : use_one(i); };
    co_await when_all(21, all);
  };
  ASSERT_TRUE(run(3, body).ok());
  EXPECT_EQ(served.load(), 20);
}

TEST_P(SocketNetworkTest, WaitingForAConnectionCanBeCancelled) {
  auto body = [&](Shard&) -> Task<void> {
    std::unique_ptr<Listener> listener = co_await network().listen(unix_address());
    for (int turns : {0, 1, 5}) {
      CancelSource source;
      auto each = [&](size_t i) -> Task<void> {
        if (i == 1) {
          for (int n = 0; n < turns; ++n) co_await Yield();
          source.cancel();
          co_return;
        }
        Result<std::unique_ptr<Connection>> none =
            co_await listener->accept(source.token()).result();
        EXPECT_FALSE(none.ok());
        EXPECT_EQ(none.error().kind, ErrorKind::kCancelled);
      };
      co_await when_all(2, each);
    }
    std::unique_ptr<Connection> client = co_await network().connect(listener->address());
    std::unique_ptr<Connection> server = co_await listener->accept(CancelToken());
    EXPECT_EQ(server->peer_name(), "unix");
  };
  ASSERT_TRUE(run(1, body).ok());
}

struct Connected {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Stream> client, server;
};
Task<Connected> connect_pair(Network& network, Address address) {
  Connected made;
  made.listener = co_await network.listen(address);
  std::unique_ptr<Connection> client = co_await network.connect(made.listener->address());
  std::unique_ptr<Connection> server = co_await made.listener->accept(CancelToken());
  made.client = client->open_stream(Shard::current());
  made.server = server->open_stream(Shard::current());
  co_return std::move(made);
}

// A read and a write of one stream, both waiting.
struct Waits {
  Result<size_t> read = size_t{0};
  Result<void> written;
};
Task<void> wait_to_read(Stream& stream, CancelToken token, Waits& waits) {
  std::vector<std::byte> memory(100);
  waits.read = co_await stream.read_some(memory, token).result();
}
Task<void> wait_to_write(Stream& stream, CancelToken token, Waits& waits) {
  std::vector<std::byte> memory(16 << 20);
  waits.written = co_await stream.write_all(ConstBuffers(Bytes(memory)), token).result();
}

TEST_P(SocketNetworkTest, ReadsAndWritesThatWaitCanBeCancelled) {
  auto body = [&](Shard& home) -> Task<void> {
    Connected pair = co_await connect_pair(network(), unix_address());
    CancelSource source;
    Waits waits;
    auto cancel_soon = [&]() -> Task<void> {
      Result<void> slept = co_await home.sleep(milliseconds(5));
      EXPECT_TRUE(slept.ok());
      source.cancel();
    };
    auto each = [&](size_t i) {
      return i == 0   ? wait_to_read(*pair.client, source.token(), waits)
             : i == 1 ? wait_to_write(*pair.client, source.token(), waits)
                      : cancel_soon();
    };
    co_await when_all(3, each);
    EXPECT_EQ(waits.read.error().kind, ErrorKind::kCancelled);
    EXPECT_EQ(waits.written.error().kind, ErrorKind::kCancelled);
  };
  ASSERT_TRUE(run(1, body).ok());
}

TEST_P(SocketNetworkTest, AShutDownEndsWhatWaits) {
  auto body = [&](Shard& home) -> Task<void> {
    Connected pair = co_await connect_pair(network(), tcp_address());
    Waits waits;
    auto shut_down_soon = [&]() -> Task<void> {
      Result<void> slept = co_await home.sleep(milliseconds(5));
      EXPECT_TRUE(slept.ok());
      pair.client->shut_down();
    };
    auto each = [&](size_t i) {
      return i == 0   ? wait_to_read(*pair.client, CancelToken(), waits)
             : i == 1 ? wait_to_write(*pair.client, CancelToken(), waits)
                      : shut_down_soon();
    };
    co_await when_all(3, each);
    EXPECT_EQ(waits.read.ok() ? waits.read.value() : 0, 0u);
    EXPECT_FALSE(waits.written.ok());
  };
  ASSERT_TRUE(run(1, body).ok());
}

TEST_P(SocketNetworkTest, APeerThatIsGoneIsAnEndForReadersAndAnErrorForWriters) {
  auto body = [&](Shard&) -> Task<void> {
    Connected pair = co_await connect_pair(network(), unix_address());
    pair.server.reset();
    Waits waits;
    co_await wait_to_read(*pair.client, CancelToken(), waits);
    EXPECT_EQ(waits.read.value(), 0u);
    co_await wait_to_write(*pair.client, CancelToken(), waits);  // and no SIGPIPE
    EXPECT_EQ(waits.written.error().kind, ErrorKind::kProtocol);
  };
  ASSERT_TRUE(run(1, body).ok());
}

// --- addresses and files -------------------------------------------------------------------------

TEST_P(SocketNetworkTest, TheFileOfASocketGoesWithItsListener) {
  auto body = [&](Shard&) -> Task<void> {
    std::unique_ptr<Listener> listener = co_await network().listen(unix_address());
    struct stat status;
    EXPECT_EQ(stat((folder / "socket").c_str(), &status), 0);
    EXPECT_TRUE(S_ISSOCK(status.st_mode));
    listener.reset();
    EXPECT_NE(stat((folder / "socket").c_str(), &status), 0);
  };
  ASSERT_TRUE(run(1, body).ok());
}

TEST_P(SocketNetworkTest, ASocketThatTookThePlaceOfOursStays) {
  auto body = [&](Shard&) -> Task<void> {
    std::unique_ptr<Listener> first = co_await network().listen(unix_address());
    unlink((folder / "socket").c_str());
    std::unique_ptr<Listener> second = co_await network().listen(unix_address());
    first.reset();
    std::unique_ptr<Connection> client = co_await network().connect(unix_address());
    EXPECT_NE(client, nullptr);
  };
  EXPECT_TRUE(run(1, body).ok());
}

// A listening socket at `path` that nobody accepts from; with a short queue.
FileDescriptor listen_at(const std::string& path) {
  FileDescriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, path.size());
  // why: the sockets interface takes all address kinds through this one type
  CHECK_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  CHECK_EQ(listen(fd.get(), 0), 0);
  return fd;
}

TEST_P(SocketNetworkTest, AStaleSocketIsReplaced) {
  listen_at(folder / "socket");  // closed at once; its file stays
  auto body = [&](Shard&) -> Task<void> { co_await connect_pair(network(), unix_address()); };
  EXPECT_TRUE(run(1, body).ok());
}

TEST_P(SocketNetworkTest, ASocketInUseIsNotReplacedEvenIfItsServerIsBehind) {
  FileDescriptor other = listen_at(folder / "socket");
  std::vector<std::unique_ptr<Connection>> waiting;
  auto body = [&](Shard&) -> Task<void> {
    // One connection fills the queue; a second one would wait.
    std::unique_ptr<Connection> first = co_await network().connect(unix_address());
    Result<std::unique_ptr<Listener>> none = co_await network().listen(unix_address()).result();
    EXPECT_FALSE(none.ok());
    EXPECT_EQ(none.error().errno_value, EADDRINUSE);
    EXPECT_NE(diagnostics().describe(none.error()).find("cannot listen on unix:"),
              std::string::npos);
  };
  ASSERT_TRUE(run(1, body).ok());
  struct stat status;
  EXPECT_EQ(stat((folder / "socket").c_str(), &status), 0);
}

TEST_P(SocketNetworkTest, AFileOfDataIsNeverReplacedBySocket) {
  std::ofstream(folder / "disk.img") << "precious";
  auto body = [&](Shard&) -> Task<void> {
    Result<std::unique_ptr<Listener>> none =
        co_await network().listen(unix_address("disk.img")).result();
    EXPECT_FALSE(none.ok());
    EXPECT_EQ(none.error().errno_value, EADDRINUSE);
  };
  ASSERT_TRUE(run(1, body).ok());
  std::string text;
  std::ifstream(folder / "disk.img") >> text;
  EXPECT_EQ(text, "precious");
}

TEST_P(SocketNetworkTest, FailuresNameTheAddress) {
  auto body = [&](Shard&) -> Task<void> {
    Result<std::unique_ptr<Connection>> none =
        co_await network().connect(unix_address("absent")).result();
    EXPECT_EQ(none.error().errno_value, ENOENT);
    EXPECT_NE(diagnostics().describe(none.error()).find("absent"), std::string::npos);
    Address long_path = UnixAddress{std::string(200, 'x')};
    Result<std::unique_ptr<Listener>> too_long = co_await network().listen(long_path).result();
    EXPECT_EQ(too_long.error().errno_value, ENAMETOOLONG);
  };
  ASSERT_TRUE(run(1, body).ok());
}

TEST_P(SocketNetworkTest, NoHostMeansEveryLocalAddress) {
  auto body = [&](Shard&) -> Task<void> {
    Address everywhere = TcpAddress{"", 0};
    std::unique_ptr<Listener> listener = co_await network().listen(everywhere);
    const uint16_t port = std::get<TcpAddress>(listener->address()).port;
    EXPECT_NE(port, 0);
    Address here = TcpAddress{"127.0.0.1", port};
    std::unique_ptr<Connection> client = co_await network().connect(here);
    std::unique_ptr<Connection> server = co_await listener->accept(CancelToken());
    const bool has_ipv6 = std::filesystem::exists("/proc/net/if_inet6");
    if (has_ipv6) {
      Address here6 = TcpAddress{"::1", port};
      std::unique_ptr<Connection> client6 = co_await network().connect(here6);
      std::unique_ptr<Connection> server6 = co_await listener->accept(CancelToken());
    }
  };
  Result<void> done = run(1, body);
  EXPECT_TRUE(done.ok()) << diagnostics().describe(done.error());
}

TEST_P(SocketNetworkTest, AHostNameIsTriedAtAllItsAddresses) {
  auto body = [&](Shard&) -> Task<void> {
    // Wherever "localhost" leads first, the server listens on IPv4 alone.
    std::unique_ptr<Listener> listener = co_await network().listen(tcp_address());
    Address named = TcpAddress{"localhost", std::get<TcpAddress>(listener->address()).port};
    std::unique_ptr<Connection> client = co_await network().connect(named);
    std::unique_ptr<Connection> server = co_await listener->accept(CancelToken());
    EXPECT_TRUE(server->peer_name().starts_with("127.0.0.1:")) << server->peer_name();
  };
  Result<void> done = run(1, body);
  EXPECT_TRUE(done.ok()) << diagnostics().describe(done.error());
}

RINGDISK_ON_BOTH_LOOPS(SocketNetworkTest);

TEST(AddressTest, ParsesWhatItPrints) {
  Diagnostics diagnostics;
  for (const char* text : {"unix:/run/x.sock", "unix:relative", "tcp:127.0.0.1:10809",
                           "tcp:[::1]:0", "tcp:host.example:65535", "tcp::10809"}) {
    Result<Address> address = parse_address(text, diagnostics);
    ASSERT_TRUE(address.ok()) << text;
    EXPECT_EQ(text_of(address.value()), text);
  }
}

TEST(AddressTest, RefusesWhatIsNone) {
  Diagnostics diagnostics;
  for (const char* text : {"", "unix:", "tcp:", "tcp:host", "tcp:host:", "tcp:host:65536",
                           "tcp:host:-1", "tcp:host:1x", "udp:host:1", "/run/x.sock"}) {
    Result<Address> address = parse_address(text, diagnostics);
    ASSERT_FALSE(address.ok()) << text;
    EXPECT_NE(diagnostics.describe(address.error()).find("write unix:PATH"), std::string::npos);
  }
}

}  // namespace
}  // namespace ringdisk
