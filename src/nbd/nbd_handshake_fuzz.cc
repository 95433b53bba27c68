// SPDX-License-Identifier: Apache-2.0
// A client that sends any bytes whatever from its first byte on, and leaves. The server must
// neither crash nor hang nor keep anything of it. Corpus: whole handshakes of common clients.
#include "nbd/simulated_server_test.h"

namespace ringdisk::nbd {
namespace {

Task<void> send_and_leave(TestBench& bench, const std::string& bytes) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  (void)co_await client->send(bytes).result();
}

void serve(const std::string& bytes) {
  sim::SimWorld world(1, 1);
  TestDisk disk(1 << 20);
  TestSetup setup(world, disk);
  auto part = [&bytes](TestBench& bench) { return send_and_leave(bench, bytes); };
  Result<void> done = run_with_server(setup, part);
  CHECK(done.ok());
}

}  // namespace
}  // namespace ringdisk::nbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  ringdisk::nbd::serve(std::string(bytes, bytes + size));
  return 0;
}
