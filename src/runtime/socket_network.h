// SPDX-License-Identifier: Apache-2.0
// SocketNetwork: the Network of a real process, over unix and TCP sockets. Transfers are tried in
// place without blocking first, and only a socket that is not ready is waited for through the loop
// (docs/decisions/0005 has the numbers).
//
// A unix socket's file is removed when its listener goes. A stale one (nobody answers) is replaced
// when listening.
#pragma once

#include "runtime/blocking_pool.h"
#include "runtime/network.h"

namespace ringdisk {

class Diagnostics;

class SocketNetwork final : public Network {
 public:
  SocketNetwork(BlockingPool& blocking, Diagnostics& diagnostics)
      : blocking_(blocking), diagnostics_(diagnostics) {}
  Task<std::unique_ptr<Listener>> listen(Address address) override;
  Task<std::unique_ptr<Connection>> connect(Address address) override;

 private:
  BlockingPool& blocking_;
  Diagnostics& diagnostics_;
};

// "unix:/run/x.sock", "tcp:HOST:PORT", "tcp:[::1]:PORT", "tcp::PORT".
Result<Address> parse_address(std::string_view text, Diagnostics& diagnostics);

}  // namespace ringdisk
