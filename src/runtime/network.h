// SPDX-License-Identifier: Apache-2.0
// Network: listening, connecting and byte streams, as interfaces, so that servers and clients run
// on the simulator too.
//
// A Listener hands out Connections, which belong to no shard yet; whoever spreads them over shards
// calls open_stream() on the shard that is to serve one. A Stream belongs to that shard: one reader
// and one writer at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>

#include "async/cancel.h"
#include "async/task.h"
#include "base/bytes.h"
#include "base/io_buffers.h"

namespace ringdisk {

class Shard;

struct UnixAddress {
  std::string path;
};
struct TcpAddress {
  std::string host;   // a name or an address; empty: every local address
  uint16_t port = 0;  // 0 when listening: any free one
};
using Address = std::variant<UnixAddress, TcpAddress>;

// "unix:/run/x.sock" or "tcp:127.0.0.1:10809", as the command line and log lines spell it.
std::string text_of(const Address& address);

class Stream {
 public:
  virtual ~Stream() = default;  // closes; nothing may be under way

  // At least one byte and at most `target.size()`; 0: the peer has closed its side. Ends with
  // kCancelled when `token` is.
  virtual Task<size_t> read_some(MutableBytes target, CancelToken token) = 0;
  // All of it.
  virtual Task<void> write_all(ConstBuffers source, CancelToken token) = 0;
  // No more reads and writes succeed, here and at the peer; those under way end. May be called at
  // any time.
  virtual void shut_down() = 0;
};

// A connection that has been accepted or made, before a shard serves it. Any thread, one at a time.
class Connection {
 public:
  virtual ~Connection() = default;  // closes it if it was not opened
  virtual std::unique_ptr<Stream> open_stream(Shard& shard) = 0;
  virtual std::string peer_name() const = 0;
};

class Listener {
 public:
  virtual ~Listener() = default;
  // One at a time, on the shard that listens.
  virtual Task<std::unique_ptr<Connection>> accept(CancelToken token) = 0;
  // Where it listens, with the port the system chose.
  virtual Address address() const = 0;
};

class Network {
 public:
  virtual ~Network() = default;
  // On the calling shard.
  virtual Task<std::unique_ptr<Listener>> listen(Address address) = 0;
  virtual Task<std::unique_ptr<Connection>> connect(Address address) = 0;
};

}  // namespace ringdisk
