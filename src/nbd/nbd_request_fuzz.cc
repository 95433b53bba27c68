// SPDX-License-Identifier: Apache-2.0
// A client that enters transmission properly and then sends any bytes whatever. The first byte of
// the input chooses simple or structured replies and a read-only export. Whatever happens, the
// server neither crashes nor hangs nor leaks, and the disk's second half, of which no request may
// speak, keeps its bytes.
#include "nbd/simulated_server_test.h"

namespace ringdisk::nbd {
namespace {

constexpr uint64_t kServedBytes = 1 << 20;

Task<void> send_and_leave(TestBench& bench, const std::string& bytes, bool structured) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", structured);
  auto body = [&client, &bytes](Scope& scope) -> Task<void> {
    scope.spawn(client->drain_all());
    (void)co_await client->send(bytes).result();
    // Whatever was to be answered has been, in virtual time; a request may still lack its payload.
    Result<void> slept = co_await Shard::current().sleep(std::chrono::seconds(1));
    CHECK(slept.ok());
    client->stream().shut_down();
  };
  co_await with_scope(body);
}

void serve(uint8_t choice, const std::string& bytes) {
  sim::SimWorld world(1, 1);
  TestDisk disk(kServedBytes);
  disk.poke(kServedBytes, std::string(4096, 'k'));
  TestSetup setup(world, disk);
  setup.exports[0].read_only = (choice & 2) != 0;
  auto part = [&bytes, choice](TestBench& bench) {
    return send_and_leave(bench, bytes, (choice & 1) != 0);
  };
  Result<void> done = run_with_server(setup, part);
  CHECK(done.ok());
  CHECK(disk.peek(kServedBytes, 4096) == std::string(4096, 'k'));
}

}  // namespace
}  // namespace ringdisk::nbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size == 0) return 0;
  ringdisk::nbd::serve(bytes[0], std::string(bytes + 1, bytes + size));
  return 0;
}
