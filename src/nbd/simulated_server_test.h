// SPDX-License-Identifier: Apache-2.0
// TestServer: an NBD server on a simulated world, over a raw disk in memory behind faults and
// delays, for the tests of this folder and its fuzzers. run_with_server() starts it, lets a client
// part run beside it, stops it, and CHECKs that nothing of the connections is left.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nbd/server.h"
#include "nbd/test_client.h"
#include "nodes/delay.h"
#include "nodes/fault.h"
#include "nodes/mem.h"
#include "nodes/raw.h"
#include "sim/sim_world.h"

namespace ringdisk::nbd {

// The content of a disk whose every 512-byte block is its own.
inline std::string block_content(uint64_t block, uint64_t seed) {
  std::string text = "block " + std::to_string(block) + " of " + std::to_string(seed) + " ";
  Random random(seed * 1'000'003 + block);
  while (text.size() < 512) text += static_cast<char>('a' + random.below(26));
  return text.substr(0, 512);
}
inline std::string content(uint64_t offset, size_t length, uint64_t seed) {
  std::string text;
  for (uint64_t block = offset / 512; block * 512 < offset + length; ++block) {
    text += block_content(block, seed);
  }
  return text.substr(offset % 512, length);
}

// A disk of `size` bytes under a server: mem, then faults, then delays, then raw.
class TestDisk {
 public:
  explicit TestDisk(uint64_t size, DelayPlan delay = no_delay())
      : memory_(std::make_shared<MemContent>(ByteCount(size))),
        faults_(std::make_shared<FaultPlan>()) {
    auto mem = std::make_unique<MemNode>("mem", 1, memory_);
    auto faulty = std::make_unique<FaultNode>(shared(std::move(mem)), faults_);
    auto slow = std::make_unique<DelayNode>(shared(std::move(faulty)), delay);
    auto raw = std::make_unique<RawNode>(shared(std::move(slow)), ByteCount(0), ByteCount(size));
    device = std::make_shared<DeviceNode>("disk", 2, std::move(raw), nullptr);
  }

  static DelayPlan no_delay() {
    DelayPlan plan;
    plan.longest = Duration::zero();
    return plan;
  }
  FaultPlan& faults() { return *faults_; }
  std::string peek(uint64_t offset, size_t length) {
    std::string text(length, '\0');
    memory_->memory().read(HostOffset(offset), std::as_writable_bytes(std::span(text)));
    return text;
  }
  void poke(uint64_t offset, const std::string& text) {
    memory_->memory().write(HostOffset(offset), as_bytes(text));
  }

  std::shared_ptr<DeviceNode> device;

 private:
  static std::unique_ptr<SharedStorage> shared(std::unique_ptr<StorageNode> node) {
    return std::make_unique<SharedStorage>(std::move(node));
  }
  std::shared_ptr<MemContent> memory_;
  std::shared_ptr<FaultPlan> faults_;
};

struct TestSetup {
  TestSetup(sim::SimWorld& sim_world, TestDisk& test_disk) : world(sim_world), disk(test_disk) {
    options.addresses.push_back(UnixAddress{"/sock"});
    ExportOptions served;
    served.name = "disk";
    served.description = "a disk for tests";
    served.device = disk.device;
    exports.push_back(std::move(served));
  }

  sim::SimWorld& world;
  TestDisk& disk;
  ServerOptions options;
  std::vector<ExportOptions> exports;
};

// What the client part of a test gets.
struct TestBench {
  TestBench(sim::SimWorld& sim_world, Server& the_server, TestDisk& test_disk,
            CancelSource& stop_source)
      : world(sim_world), server(the_server), disk(test_disk), stop(stop_source) {}

  Task<std::unique_ptr<TestClient>> connect() {
    return TestClient::connect(world.network(), UnixAddress{"/sock"});
  }

  sim::SimWorld& world;
  Server& server;
  TestDisk& disk;
  CancelSource& stop;
};

namespace test_internal {
template <class Part>
Task<void> run_part(Scope& scope, TestBench& bench, Part& part) {
  scope.spawn(bench.server.run(bench.stop.token()));
  Result<void> done = co_await part(bench).result();
  bench.stop.cancel();
  co_await std::move(done);
}
template <class Part>
Task<void> serve_and_run(TestSetup& setup, Part& part) {
  Server server(setup.world.world(), setup.options, setup.exports);
  co_await server.listen();
  CancelSource stop;
  TestBench bench(setup.world, server, setup.disk, stop);
  auto body = [&bench, &part](Scope& scope) { return run_part(scope, bench, part); };
  co_await with_scope(body);
  setup.exports.clear();
  co_await setup.disk.device->close();
}
}  // namespace test_internal

// Runs part(bench), a Task<void>, on shard 0 beside a server, and gives the first error of the two.
template <class Part>
Result<void> run_with_server(TestSetup& setup, Part part) {
  auto root = [&setup, &part](Shard&) { return test_internal::serve_and_run(setup, part); };
  Result<void> done = setup.world.run(root);
  CHECK_EQ(setup.world.network().open_links(), uint64_t{0});
  for (uint32_t i = 0; i < setup.world.shard_count(); ++i) {
    CHECK_EQ(setup.world.shard(i).buffers().taken(), uint64_t{0});
    CHECK_EQ(setup.world.shard(i).executor().frames().live(), uint64_t{0});
  }
  return done;
}

}  // namespace ringdisk::nbd
