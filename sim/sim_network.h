// SPDX-License-Identifier: Apache-2.0
// SimNetwork: listeners, connections and byte streams between the shards of one simulated world.
//
// What it does to the bytes of a correct stream: reads give a drawn prefix of what is there, a
// writer may wait because only `buffered_bytes` are under way, both are delayed by drawn times.
// Bytes arrive once, in order. What it does to connections, where `faults` says so: operation
// number n fails and cuts its connection; the connection is cut once n bytes have been written to
// the network; from byte n on nothing arrives any more (a stall: only a cancellation or shut_down()
// ends a wait). A cut loses what was under way, and both ends get ECONNRESET. One thread; belongs
// to its SimWorld.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/random.h"
#include "runtime/clock.h"
#include "runtime/network.h"

namespace ringdisk::sim {

class SimListener;
struct SimLink;

struct NetworkBehaviour {
  bool splits_reads = true;
  size_t buffered_bytes = 64 * 1024;  // per direction; at least 1
  Duration delay_max = std::chrono::microseconds(50);
  uint32_t backlog = 128;  // connections that wait for accept()
};

struct NetworkFaults {
  std::optional<uint64_t>
      fail_operation;  // counted by operations(): connect, accept, read_some, write_all
  std::optional<uint64_t> cut_at_byte;  // counted by bytes_written()
  std::optional<uint64_t> stall_at_byte;
};

class SimNetwork final : public Network {
 public:
  explicit SimNetwork(uint64_t seed);
  ~SimNetwork() override;  // CHECKs that no listener is left

  Task<std::unique_ptr<Listener>> listen(Address address) override;
  Task<std::unique_ptr<Connection>> connect(Address address) override;

  // The test may change both at any time.
  NetworkBehaviour behaviour;
  NetworkFaults faults;

  uint64_t operations() const { return operations_; }
  uint64_t bytes_written() const { return bytes_written_; }
  // Connections whose ends are not both gone: what a server must not leak.
  uint64_t open_links() const { return open_links_; }
  // Cuts every connection there is.
  void cut_all();

 private:
  friend class SimListener;
  friend class SimConnection;
  friend class SimStream;
  friend struct SimLink;

  // Counts one operation; true: it is the one that fails.
  bool next_operation_fails();
  Task<void> delay(CancelToken token);
  void remove_listener(const std::string& key) { listeners_.erase(key); }

  Random random_;
  std::map<std::string, SimListener*> listeners_;
  std::map<uint64_t, SimLink*> links_;  // by a number, so that their order is the same in every run
  uint16_t next_port_ = 40000;
  uint64_t next_link_ = 0;
  uint64_t operations_ = 0;
  uint64_t bytes_written_ = 0;
  uint64_t open_links_ = 0;
};

}  // namespace ringdisk::sim
