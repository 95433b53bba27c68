// SPDX-License-Identifier: Apache-2.0
// Finding each other: listeners by address, connects, accepts.
#include "sim/sim_network.h"

#include <cerrno>

#include "runtime/shard.h"
#include "sim/sim_link.h"

namespace ringdisk::sim {
namespace {

std::string key_of(const Address& address) {
  if (const auto* unix_address = std::get_if<UnixAddress>(&address)) {
    return "unix:" + unix_address->path;
  }
  return "tcp:" + std::to_string(std::get<TcpAddress>(address).port);  // one simulated host
}

}  // namespace

SimNetwork::SimNetwork(uint64_t seed) : random_(seed) {}

SimNetwork::~SimNetwork() { CHECK(listeners_.empty()); }

bool SimNetwork::next_operation_fails() {
  uint64_t number = operations_++;
  return faults.fail_operation && *faults.fail_operation == number;
}

Task<void> SimNetwork::delay(CancelToken token) {
  if (behaviour.delay_max.count() == 0 || random_.chance(50)) co_return;
  Duration length(
      static_cast<int64_t>(random_.below(static_cast<uint64_t>(behaviour.delay_max.count()))));
  Result<void> slept = co_await Shard::current().sleep(length, token);
  co_await std::move(slept);
}

void SimNetwork::cut_all() {
  for (auto& [number, link] : links_) link->cut();
}

Task<std::unique_ptr<Listener>> SimNetwork::listen(Address address) {
  if (auto* tcp = std::get_if<TcpAddress>(&address); tcp && tcp->port == 0)
    tcp->port = next_port_++;
  std::string key = key_of(address);
  if (listeners_.contains(key)) co_return Error::from_errno(EADDRINUSE, "listen");
  auto listener = std::make_unique<SimListener>(*this, address, key);
  listeners_[key] = listener.get();
  std::unique_ptr<Listener> made = std::move(listener);
  co_return std::move(made);
}

Task<std::unique_ptr<Connection>> SimNetwork::connect(Address address) {
  bool fails = next_operation_fails();
  CancelToken never;
  co_await delay(never);
  auto found = listeners_.find(key_of(address));
  if (fails || found == listeners_.end()) co_return Error::from_errno(ECONNREFUSED, "connect");
  SimListener& listener = *found->second;
  if (listener.waiting_.size() >= behaviour.backlog) co_return Error::from_errno(EAGAIN, "connect");
  auto link = std::make_shared<SimLink>(*this);
  listener.waiting_.push_back(std::make_unique<SimConnection>(link, 1));
  listener.arrived_.notify_all();
  std::unique_ptr<Connection> made = std::make_unique<SimConnection>(link, 0);
  co_return std::move(made);
}

Task<std::unique_ptr<Connection>> SimListener::accept(CancelToken token) {
  if (network_.next_operation_fails()) co_return Error::from_errno(ECONNABORTED, "accept");
  co_await network_.delay(token);
  while (waiting_.empty()) {
    if (token.is_cancelled()) co_return Error::of(ErrorKind::kCancelled, "accept");
    CrossShardWait wait(arrived_, token);
    co_await wait;
  }
  std::unique_ptr<Connection> accepted = std::move(waiting_.front());
  waiting_.pop_front();
  co_return std::move(accepted);
}

}  // namespace ringdisk::sim
