// SPDX-License-Identifier: Apache-2.0
//
// socket_paths: which way should bytes reach a stream socket on this kernel?
//
//   socket_paths [--seconds=S] [--rounds=N] [--only=TEXT]
//
// A server process (measured: its CPU time is the one printed) answers a client process on the
// same machine, over unix and TCP loopback sockets. The client is the same plain blocking one for
// every way: it keeps `depth` requests in flight on each connection, and sends as many requests
// at once as replies came. Latency is the client's, one connection at depth 1. Client and server
// are bound to two CPUs, or ("one cpu") to the same one, where a switch costs least and the system
// calls show; left alone the scheduler changes between the two and the medians mean nothing.
// The answer it gave is docs/decisions/0005-how-bytes-reach-a-socket.md.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "cell.h"
#include "server_ways.h"

namespace ringdisk::bench {

namespace {

constexpr size_t kSamplesMax = 1 << 20;

struct Options {
  double seconds = 0.3;
  int rounds = 3;
  std::string only;
};

struct Case {
  std::string name;
  bool tcp = false;
  bool one_cpu = false;
  uint32_t connections = 1;
  uint32_t depth = 1;
  Exchange exchange;
};

struct Ends {
  int client = -1;
  int server = -1;
};

void bind_to_cpu(size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);  // where it fails, the numbers are only noisier
}

Ends connect_tcp() {
  Ends ends;
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener, generic, length) != 0 || listen(listener, 1) != 0) return ends;
  getsockname(listener, generic, &length);
  ends.client = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(ends.client, generic, length) != 0) return ends;
  ends.server = accept(listener, nullptr, nullptr);
  close(listener);
  const int on = 1;
  setsockopt(ends.client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(ends.server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return ends;
}

Ends connect_unix() {
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return {};
  return {ends[0], ends[1]};
}

class Client {
 public:
  Client(const Case& what, const Options& options, const std::vector<int>& sockets)
      : what_(what),
        options_(options),
        sockets_(sockets),
        replies_part_(sockets.size()),
        requests_(size_t{what.exchange.request_bytes} * what.depth),
        replies_(256 << 10) {
    latencies_us_.reserve(kSamplesMax);
  }

  Sample run() {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < sockets_.size(); ++i) {
      epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
      epoll_ctl(epoll_, EPOLL_CTL_ADD, sockets_[i], &event);
    }
    const double start = now_seconds();
    now_ = start;
    end_ = start + options_.seconds;
    for (size_t i = 0; i < sockets_.size(); ++i) ask(i, what_.depth);
    while (in_flight_ > 0 && sample_.error == 0) turn();
    sample_.per_second = static_cast<double>(done_) / (now_ - start);
    summarise_latency(latencies_us_, sample_);
    return sample_;
  }

 private:
  void turn() {
    if (sockets_.size() == 1) return read_replies(0);  // blocks there
    std::array<epoll_event, 64> events;
    const int count = epoll_wait(epoll_, events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) read_replies(events[static_cast<size_t>(i)].data.u64);
  }

  void read_replies(size_t connection) {
    const ssize_t bytes = recv(sockets_[connection], replies_.data(), replies_.size(), 0);
    if (bytes <= 0) {
      sample_.error = bytes == 0 ? EPIPE : errno;
      return;
    }
    replies_part_[connection] += static_cast<uint64_t>(bytes);
    const uint64_t count = replies_part_[connection] / what_.exchange.reply_bytes();
    replies_part_[connection] %= what_.exchange.reply_bytes();
    if (count == 0) return;
    done_ += count;
    in_flight_ -= count;
    const double before = now_;
    now_ = now_seconds();
    const bool alone = what_.depth == 1 && sockets_.size() == 1;
    if (alone && latencies_us_.size() < kSamplesMax) {
      latencies_us_.push_back(static_cast<float>((now_ - before) * 1e6));
    }
    if (now_ < end_) ask(connection, count);
  }

  void ask(size_t connection, uint64_t count) {
    const size_t bytes = count * what_.exchange.request_bytes;
    in_flight_ += count;
    for (size_t sent = 0; sent < bytes;) {
      const ssize_t some =
          send(sockets_[connection], requests_.data() + sent, bytes - sent, MSG_NOSIGNAL);
      if (some < 0) {
        sample_.error = errno;
        return;
      }
      sent += static_cast<size_t>(some);
    }
  }

  const Case& what_;
  const Options& options_;
  const std::vector<int>& sockets_;
  std::vector<uint64_t> replies_part_;  // bytes of the reply that has not come whole
  std::vector<std::byte> requests_;
  std::vector<std::byte> replies_;
  std::vector<float> latencies_us_;
  int epoll_ = -1;
  double now_ = 0;
  double end_ = 0;
  uint64_t in_flight_ = 0;
  uint64_t done_ = 0;
  Sample sample_;
};

// Runs in a process of its own, the server; the client is a child of it.
Sample run_cell(const Case& what, const Options& options, const std::string& way) {
  std::vector<int> clients;
  std::vector<Connection> servers;
  Sample failed;
  failed.error = EIO;
  for (uint32_t i = 0; i < what.connections; ++i) {
    const Ends ends = what.tcp ? connect_tcp() : connect_unix();
    if (ends.server < 0) return failed;
    clients.push_back(ends.client);
    servers.emplace_back(ends.server, what.exchange);
  }
  int results[2];
  if (pipe(results) != 0) return failed;
  const pid_t client_process = fork();
  if (client_process == 0) {
    bind_to_cpu(0);
    for (const Connection& server : servers) close(server.socket());
    const Sample sample = Client(what, options, clients).run();
    const bool sent = write(results[1], &sample, sizeof sample) == sizeof sample;
    _exit(sent ? 0 : 1);
  }
  for (const int client : clients) close(client);
  bind_to_cpu(what.one_cpu ? 0 : 1);
  const double start = now_seconds();
  const double cpu_start = cpu_seconds();
  const int error = serve(way, servers);
  const double cpus = (cpu_seconds() - cpu_start) / (now_seconds() - start);
  Sample sample = failed;
  if (error == 0 && read(results[0], &sample, sizeof sample) != sizeof sample) sample = failed;
  if (error != 0) sample.error = error;
  waitpid(client_process, nullptr, 0);
  sample.cpus = cpus;
  sample.workers = count_uring_workers();
  return sample;
}

std::vector<Case> make_cases() {
  const Exchange write{.request_bytes = 28 + 4096, .reply_payload_bytes = 0};
  std::vector<Case> cases;
  for (const bool tcp : {false, true}) {
    const std::string kind = tcp ? "tcp" : "unix";
    for (const uint32_t depth : {1u, 64u}) {
      cases.push_back({kind + " read", tcp, false, 1, depth, {}});
      cases.push_back({kind + " write", tcp, false, 1, depth, write});
    }
    cases.push_back({kind + " read, one cpu", tcp, true, 1, 1, {}});
    for (const uint32_t depth : {1u, 4u}) {
      cases.push_back({kind + " read", tcp, false, 16, depth, {}});
    }
  }
  return cases;
}

void run_case(const Case& what, const Options& options) {
  char shape[64];
  std::snprintf(shape, sizeof shape, "%s, %u x %u", what.name.c_str(), what.connections,
                what.depth);
  const std::string label = shape;
  if (label.find(options.only) == std::string::npos) return;
  const std::vector<std::string>& ways = server_way_names();
  std::vector<std::vector<Sample>> samples(ways.size());
  for (int round = 0; round < options.rounds; ++round) {
    for (size_t i = 0; i < ways.size(); ++i) {
      samples[i].push_back(run_in_child([&] { return run_cell(what, options, ways[i]); }));
    }
  }
  for (size_t i = 0; i < ways.size(); ++i) {
    print_row(label + ", " + ways[i], median_of(samples[i]));
  }
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    parse_number(argument, "--seconds=", options.seconds);
    parse_number(argument, "--rounds=", options.rounds);
    if (argument.starts_with("--only=")) options.only = argument.substr(7);
  }
  return options;
}

int run(const Options& options) {
  print_header("sockets");
  for (const Case& what : make_cases()) run_case(what, options);
  return 0;
}

}  // namespace

}  // namespace ringdisk::bench

int main(int argc, char** argv) { return ringdisk::bench::run(ringdisk::bench::parse(argc, argv)); }
