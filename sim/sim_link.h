// SPDX-License-Identifier: Apache-2.0
// SimLink: one connection of the simulated network, shared by its two ends, and the ends
// themselves.
//
//   end 0: write_all ──> pipes[0] [ bytes under way ] ──> read_some: end 1
//   end 0: read_some <── pipes[1] [ bytes under way ] <── write_all: end 1
//
// Internal to sim_network.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "sim/cross_shard_wait.h"
#include "sim/sim_network.h"

namespace ringdisk::sim {

// One direction. `ended`: the writer will write no more. `refused`: the reader will read no more.
struct SimPipe {
  std::deque<std::byte> bytes;
  bool ended = false;
  bool refused = false;
  Signal changed;
};

struct SimLink {
  explicit SimLink(SimNetwork& owner);
  ~SimLink();
  SimLink(const SimLink&) = delete;
  SimLink& operator=(const SimLink&) = delete;

  // Both ends get an error from now on; what was under way is lost.
  void cut();
  // End `side` (0 or 1) neither reads nor writes any more; what it wrote still arrives.
  void close(size_t side);

  SimNetwork& network;
  const uint64_t number;
  std::array<SimPipe, 2> pipes;  // [side]: written by that side
  bool is_cut = false;
};

class SimStream final : public Stream {
 public:
  SimStream(std::shared_ptr<SimLink> link, size_t side) : link_(std::move(link)), side_(side) {}
  ~SimStream() override { link_->close(side_); }
  Task<size_t> read_some(MutableBytes target, CancelToken token) override;
  Task<void> write_all(ConstBuffers source, CancelToken token) override;
  void shut_down() override;

 private:
  SimPipe& incoming() { return link_->pipes[1 - side_]; }
  SimPipe& outgoing() { return link_->pipes[side_]; }
  bool is_stalled() const;
  Task<void> begin(const char* operation, CancelToken token);
  size_t take(MutableBytes target);
  Task<void> write_piece(Bytes piece, CancelToken token);

  std::shared_ptr<SimLink> link_;
  const size_t side_;
  bool reading_ = false;
  bool writing_ = false;
};

class SimConnection final : public Connection {
 public:
  SimConnection(std::shared_ptr<SimLink> link, size_t side) : link_(std::move(link)), side_(side) {}
  ~SimConnection() override {
    if (link_) link_->close(side_);
  }
  std::unique_ptr<Stream> open_stream(Shard&) override {
    CHECK(link_ != nullptr);
    return std::make_unique<SimStream>(std::move(link_), side_);
  }
  std::string peer_name() const override;

 private:
  std::shared_ptr<SimLink> link_;
  const size_t side_;
};

class SimListener final : public Listener {
 public:
  SimListener(SimNetwork& network, Address address, std::string key)
      : network_(network), address_(std::move(address)), key_(std::move(key)) {}
  ~SimListener() override { network_.remove_listener(key_); }
  Task<std::unique_ptr<Connection>> accept(CancelToken token) override;
  Address address() const override { return address_; }

 private:
  friend class SimNetwork;
  SimNetwork& network_;
  const Address address_;
  const std::string key_;
  std::deque<std::unique_ptr<Connection>> waiting_;
  Signal arrived_;
};

}  // namespace ringdisk::sim
