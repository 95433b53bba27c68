// SPDX-License-Identifier: Apache-2.0
// SimLoop: the event loop of a shard in the simulator. There are no file descriptors in a simulated
// world: storages and networks are simulated above the loop (sim_storage.h, sim_network.h), so an
// operation that reaches this loop is a test that would touch the real machine, and ends the
// process. It never sleeps; SimWorld decides who runs.
#pragma once

#include "runtime/loop.h"

namespace ringdisk::sim {

class SimLoop final : public Loop {
 public:
  std::string_view name() const override { return "sim"; }
  bool start(IoRequest&) override {
    UNREACHABLE("a simulated shard has no file descriptors; use a storage or network of sim/");
  }
  void cancel(IoRequest&) override { UNREACHABLE("nothing was started on a simulated loop"); }
  uint32_t poll(std::optional<Duration>) override { return 0; }
  void wake() override {}
  int register_file(int) override { return -1; }
  void unregister_file(int) override { UNREACHABLE("no file was registered"); }
  int register_buffers(MutableBytes) override { return -1; }
};

}  // namespace ringdisk::sim
