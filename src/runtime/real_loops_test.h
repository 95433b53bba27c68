// SPDX-License-Identifier: Apache-2.0
// RealLoopsTest: a test that runs on each of the two real loops, over a runtime of its own. And the
// few things of the machine that such tests need: a folder that goes away, and the wait for another
// thread.
//
//   TEST_P(ShardTest, DoesIt) {
//     auto body = [&](Shard& shard) -> Task<void> { … };
//     EXPECT_TRUE(run(2, body).ok());
//   }
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <type_traits>

#include "base/diagnostics.h"
#include "runtime/runtime.h"
#include "runtime/socket_network.h"
#include "runtime/socket_stream.h"
#include "runtime/thread_blocking_pool.h"
#include "runtime/uring_loop.h"

namespace ringdisk {

inline std::string name_of_loop(LoopKind kind) {
  return kind == LoopKind::kUring ? "uring" : "epoll";
}

class RealLoopsTest : public ::testing::TestWithParam<LoopKind> {
 protected:
  void SetUp() override {
    if (GetParam() == LoopKind::kUring && !make_uring_loop().ok()) {
      GTEST_SKIP() << "this kernel or sandbox has no io_uring";
    }
  }

  // Runs root(shard), a Task<T>, on shard 0 of a runtime of `shards` shards, then ends the runtime.
  template <class F>
  auto run(uint32_t shards, F root)
      -> Result<typename std::invoke_result_t<F&, Shard&>::value_type> {
    RuntimeOptions options;
    options.shards = shards;
    options.loop = GetParam();
    Runtime runtime(options, clock_, log_);
    RETURN_IF_ERROR(runtime.start());
    ThreadBlockingPool blocking(runtime.worker_threads());
    SocketNetwork network(blocking, diagnostics_);
    runtime_ = &runtime;
    blocking_ = &blocking;
    network_ = &network;
    return runtime.run(root);
  }

  // While run() runs.
  Shard& shard(size_t index) { return *runtime_->shards()[index]; }
  size_t shard_count() const { return runtime_->shards().size(); }
  BlockingPool& blocking() { return *blocking_; }
  Network& network() { return *network_; }

  Diagnostics& diagnostics() { return diagnostics_; }
  const Clock& system_clock() const { return clock_; }

 private:
  SystemClock clock_;
  Log log_{-1, LogLevel::kWarning, ""};
  Diagnostics diagnostics_;
  Runtime* runtime_ = nullptr;
  BlockingPool* blocking_ = nullptr;
  Network* network_ = nullptr;
};

#define RINGDISK_ON_BOTH_LOOPS(suite)                                                              \
  INSTANTIATE_TEST_SUITE_P(                                                                        \
      Loops, suite, ::testing::Values(::ringdisk::LoopKind::kUring, ::ringdisk::LoopKind::kEpoll), \
      [](const auto& kind) { return ::ringdisk::name_of_loop(kind.param); })

// A folder that is removed with all that is in it.
class TemporaryFolder {
 public:
  TemporaryFolder() { CHECK(mkdtemp(path_.data()) != nullptr); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_ = std::filesystem::temp_directory_path().string() + "/ringdisk-test-XXXXXX";
};

// A new file, open for reading and writing.
inline FileDescriptor create_file(const std::string& path) {
  FileDescriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  CHECK_GE(file.get(), 0);
  return file;
}

}  // namespace ringdisk
