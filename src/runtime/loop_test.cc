// SPDX-License-Identifier: Apache-2.0
// What both real loops do with requests: files, polls, cancellation, waking.
#include "runtime/loop.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <csignal>
#include <thread>
#include <vector>

#include "async/event.h"
#include "async/scope.h"
#include "runtime/next_turn.h"
#include "runtime/real_loops_test.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

using std::chrono::milliseconds;

class LoopTest : public RealLoopsTest {};

std::vector<std::byte> pattern(uint64_t seed, size_t length) {
  std::vector<std::byte> bytes(length);
  for (size_t at = 0; at < length; ++at) {
    bytes[at] = static_cast<std::byte>(Random(seed + at / 512).next() >> (8 * (at % 8)));
  }
  return bytes;
}

Task<int32_t> perform(Shard& shard, IoRequest request) {
  int32_t result = co_await shard.loop().perform(request);
  co_return result;
}

// --- files ---------------------------------------------------------------------------------------

TEST_P(LoopTest, FilesAreWrittenReadAllocatedAndSynced) {
  TemporaryFolder folder;
  FileDescriptor file = create_file(folder / "file");
  const int fd = file.get();
  std::vector<std::byte> source = pattern(1, 10000), target(10000);
  auto body = [&](Shard& shard) -> Task<void> {
    int32_t written = co_await perform(shard, IoRequest::write(fd, source, 5000));
    EXPECT_EQ(written, 10000);
    IoRequest durable = IoRequest::write(fd, Bytes(source).first(512), 0);
    durable.dsync = true;
    int32_t short_write = co_await shard.loop().perform(durable);
    EXPECT_EQ(short_write, 512);
    int32_t synced = co_await perform(shard, IoRequest::sync(fd));
    EXPECT_EQ(synced, 0);
    int32_t got = co_await perform(shard, IoRequest::read(fd, target, 5000));
    EXPECT_EQ(got, 10000);
    EXPECT_EQ(target, source);
    int32_t allocated = co_await perform(shard, IoRequest::allocate(fd, 0, 0, 50000));
    EXPECT_EQ(allocated, 0);
    int32_t at_end = co_await perform(shard, IoRequest::read(fd, target, 50000));
    EXPECT_EQ(at_end, 0);
    int32_t last = co_await perform(shard, IoRequest::read(fd, target, 49990));
    EXPECT_EQ(last, 10);
  };
  ASSERT_TRUE(run(1, body).ok());
  struct stat status;
  ASSERT_EQ(fstat(fd, &status), 0);
  EXPECT_EQ(status.st_size, 50000);
}

TEST_P(LoopTest, SeveralPiecesOfMemoryAreOneTransfer) {
  TemporaryFolder folder;
  FileDescriptor file = create_file(folder / "file");
  std::vector<std::byte> source = pattern(2, 3000), first(1000), second(2000);
  const iovec from[] = {{source.data(), 100}, {source.data() + 100, 2900}};
  const iovec to[] = {{first.data(), 1000}, {second.data(), 2000}};
  auto body = [&](Shard& shard) -> Task<void> {
    int32_t written = co_await perform(shard, IoRequest::writev(file.get(), from, 2, 7));
    EXPECT_EQ(written, 3000);
    int32_t got = co_await perform(shard, IoRequest::readv(file.get(), to, 2, 7));
    EXPECT_EQ(got, 3000);
    int32_t one = co_await perform(shard, IoRequest::readv(file.get(), to, 1, 7));
    EXPECT_EQ(one, 1000);
  };
  ASSERT_TRUE(run(1, body).ok());
  first.insert(first.end(), second.begin(), second.end());
  EXPECT_EQ(first, source);
}

TEST_P(LoopTest, AnErrnoComesBackNegated) {
  TemporaryFolder folder;
  FileDescriptor file(open((folder / "file").c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
  std::vector<std::byte> memory(512);
  auto body = [&](Shard& shard) -> Task<void> {
    int32_t none = co_await perform(shard, IoRequest::read(-1, memory, 0));
    EXPECT_EQ(none, -EBADF);
    int32_t denied = co_await perform(shard, IoRequest::write(file.get(), memory, 0));
    EXPECT_EQ(denied, -EBADF);
    int32_t poll = co_await perform(shard, IoRequest::poll(-1, IoOpcode::kPollIn));
    EXPECT_EQ(poll, -EBADF);
  };
  ASSERT_TRUE(run(1, body).ok());
}

Task<void> read_block(Shard& shard, int fd, uint64_t block, uint64_t& mistakes) {
  uint64_t value = 0;
  MutableBytes target = std::as_writable_bytes(std::span(&value, 1));
  int32_t got = co_await perform(shard, IoRequest::read(fd, target, block * 512));
  mistakes += got != 8 || value != block;
}

// More than the submission queue and the completion queue of a ring hold.
TEST_P(LoopTest, TenThousandRequestsAtOnceAllComplete) {
  TemporaryFolder folder;
  FileDescriptor file = create_file(folder / "file");
  constexpr uint64_t kBlocks = 10'000;
  for (uint64_t block = 0; block < kBlocks; ++block) {
    ASSERT_EQ(pwrite(file.get(), &block, 8, static_cast<off_t>(block * 512)), 8);
  }
  uint64_t mistakes = 0;
  auto body = [&](Shard& shard) -> Task<void> {
    auto one = [&](size_t block) { return read_block(shard, file.get(), block, mistakes); };
    co_await when_all(kBlocks, one);
  };
  ASSERT_TRUE(run(1, body).ok());
  EXPECT_EQ(mistakes, 0u);
}

TEST_P(LoopTest, RegisteredFilesAndBuffersServeTheSameBytes) {
  TemporaryFolder folder;
  FileDescriptor file = create_file(folder / "file");
  std::vector<std::byte> source = pattern(3, 4096);
  auto body = [&](Shard& shard) -> Task<void> {
    const int slot = shard.loop().register_file(file.get());
    EXPECT_EQ(slot >= 0, GetParam() == LoopKind::kUring);
    Buffer buffer = shard.buffers().take(4096);
    copy_bytes(source, buffer.first(4096));
    IoRequest write = IoRequest::write(file.get(), buffer.first(4096), 0);
    write.fixed_file = slot;
    write.fixed_buffer = buffer.fixed_slot();
    int32_t written = co_await shard.loop().perform(write);
    EXPECT_EQ(written, 4096);
    fill_zero(buffer.first(4096));
    IoRequest read = IoRequest::read(file.get(), buffer.first(4096), 0);
    read.fixed_file = slot;
    read.fixed_buffer = buffer.fixed_slot();
    int32_t got = co_await shard.loop().perform(read);
    EXPECT_EQ(got, 4096);
    EXPECT_TRUE(std::equal(source.begin(), source.end(), buffer.bytes().begin()));
    shard.loop().unregister_file(slot);
    const int again = shard.loop().register_file(file.get());
    EXPECT_EQ(again, slot) << "slots are used again";
    shard.loop().unregister_file(again);
  };
  ASSERT_TRUE(run(1, body).ok());
}

TEST_P(LoopTest, WhatMayBlockGoesToAWorkerAndCompletes) {
  TemporaryFolder folder;
  FileDescriptor file = create_file(folder / "file");
  std::vector<std::byte> source = pattern(4, 512);
  auto body = [&](Shard& shard) -> Task<void> {
    IoRequest write = IoRequest::write(file.get(), source, 0);
    write.may_block = true;
    int32_t written = co_await shard.loop().perform(write);
    EXPECT_EQ(written, 512);
  };
  ASSERT_TRUE(run(1, body).ok());
}

// --- polls ---------------------------------------------------------------------------------------

// Two ends that are connected; not blocking.
struct Pair {
  Pair() {
    int ends[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    a = FileDescriptor(ends[0]);
    b = FileDescriptor(ends[1]);
  }
  FileDescriptor a, b;
};

Task<void> poll_into(Shard& shard, IoRequest& request, int32_t& result) {
  result = co_await shard.loop().perform(request);
}
Task<void> turns(Shard& shard, int count) {
  for (int i = 0; i < count; ++i) co_await NextTurn(shard);
}

TEST_P(LoopTest, APollEndsWhenThereIsSomethingToRead) {
  Pair pair;
  auto body = [&](Shard& shard) -> Task<void> {
    IoRequest request = IoRequest::poll(pair.a.get(), IoOpcode::kPollIn);
    int32_t result = 0;
    auto send_later = [&](Shard& here) -> Task<void> {
      co_await turns(here, 10);
      EXPECT_EQ(result, 0) << "nothing was sent yet";
      EXPECT_EQ(write(pair.b.get(), "x", 1), 1);
    };
    auto both = [&](size_t i) {
      return i == 0 ? poll_into(shard, request, result) : send_later(shard);
    };
    co_await when_all(2, both);
    EXPECT_GT(result, 0);
    int32_t writable = co_await perform(shard, IoRequest::poll(pair.a.get(), IoOpcode::kPollOut));
    EXPECT_GT(writable, 0);
    pair.b = FileDescriptor();
    int32_t hung_up = co_await perform(shard, IoRequest::poll(pair.a.get(), IoOpcode::kPollIn));
    EXPECT_GT(hung_up, 0);
  };
  ASSERT_TRUE(run(1, body).ok());
}

TEST_P(LoopTest, AReaderAndAWriterOfOneSocketWaitIndependently) {
  Pair pair;
  std::vector<char> filling(1 << 20);
  while (write(pair.a.get(), filling.data(), filling.size()) > 0) continue;
  auto body = [&](Shard& shard) -> Task<void> {
    IoRequest in = IoRequest::poll(pair.a.get(), IoOpcode::kPollIn);
    IoRequest out = IoRequest::poll(pair.a.get(), IoOpcode::kPollOut);
    int32_t in_result = 0, out_result = 0;
    auto drive = [&](Shard& here) -> Task<void> {
      co_await turns(here, 5);
      EXPECT_EQ(in_result, 0);
      EXPECT_EQ(out_result, 0);
      while (read(pair.b.get(), filling.data(), filling.size()) > 0) continue;
      while (out_result == 0) co_await turns(here, 1);
      EXPECT_EQ(in_result, 0);
      EXPECT_EQ(write(pair.b.get(), "x", 1), 1);
    };
    auto each = [&](size_t i) {
      return i == 0   ? poll_into(shard, in, in_result)
             : i == 1 ? poll_into(shard, out, out_result)
                      : drive(shard);
    };
    co_await when_all(3, each);
    EXPECT_GT(in_result, 0);
    EXPECT_GT(out_result, 0);
  };
  ASSERT_TRUE(run(1, body).ok());
}

TEST_P(LoopTest, ACancelledPollEndsOnceAndTheOtherGoesOn) {
  Pair pair;
  auto body = [&](Shard& shard) -> Task<void> {
    for (int i = 0; i < 100; ++i) {
      IoRequest request = IoRequest::poll(pair.a.get(), IoOpcode::kPollIn);
      int32_t result = 0;
      auto cancel = [&](Shard& here) -> Task<void> {
        co_await turns(here, i % 4);
        here.loop().cancel(request);
      };
      auto both = [&](size_t which) {
        return which == 0 ? poll_into(shard, request, result) : cancel(shard);
      };
      co_await when_all(2, both);
      EXPECT_EQ(result, -ECANCELED);
      shard.loop().cancel(request);  // too late, and harmless
    }
    EXPECT_EQ(write(pair.b.get(), "x", 1), 1);
    int32_t after = co_await perform(shard, IoRequest::poll(pair.a.get(), IoOpcode::kPollIn));
    EXPECT_GT(after, 0);
  };
  ASSERT_TRUE(run(1, body).ok());
}

TEST_P(LoopTest, ACancelledFileOperationStillCompletesOnce) {
  TemporaryFolder folder;
  FileDescriptor file = create_file(folder / "file");
  std::vector<std::byte> source = pattern(5, 100'000);
  auto body = [&](Shard& shard) -> Task<void> {
    for (int i = 0; i < 50; ++i) {
      IoRequest request = IoRequest::write(file.get(), source, 0);
      request.may_block = true;
      int32_t result = 0;
      auto cancel = [&](Shard& here) -> Task<void> {
        here.loop().cancel(request);
        co_return;
      };
      auto both = [&](size_t which) {
        return which == 0 ? poll_into(shard, request, result) : cancel(shard);
      };
      co_await when_all(2, both);
      EXPECT_TRUE(result == -ECANCELED || result == -EINTR || result == 100'000) << result;
    }
  };
  ASSERT_TRUE(run(1, body).ok());
}

// A descriptor that is closed and opened again has the same number and is another file.
TEST_P(LoopTest, ADescriptorsNumberMayBeUsedAgain) {
  auto body = [&](Shard& shard) -> Task<void> {
    for (int i = 0; i < 20; ++i) {
      Pair pair;
      EXPECT_EQ(write(pair.b.get(), "x", 1), 1);
      int32_t ready = co_await perform(shard, IoRequest::poll(pair.a.get(), IoOpcode::kPollIn));
      EXPECT_GT(ready, 0);
      IoRequest quiet = IoRequest::poll(pair.b.get(), IoOpcode::kPollIn);
      int32_t result = 0;
      auto cancel = [&](Shard& here) -> Task<void> {
        co_await turns(here, 2);
        here.loop().cancel(quiet);
      };
      auto both = [&](size_t which) {
        return which == 0 ? poll_into(shard, quiet, result) : cancel(shard);
      };
      co_await when_all(2, both);
      EXPECT_EQ(result, -ECANCELED);
    }
  };
  ASSERT_TRUE(run(1, body).ok());
}

// --- waking --------------------------------------------------------------------------------------

// A message from a thread that is no shard.
class Knock final : public Message {
 public:
  void deliver() override { event_.set(); }
  Event& event() { return event_; }

 private:
  Event event_;
};

TEST_P(LoopTest, AMessageOfAnotherThreadEndsASleep) {
  auto body = [&](Shard& shard) -> Task<void> {
    for (int i = 0; i < 100; ++i) {
      Knock knock;
      std::thread thread([&shard, &knock, i] {
        // Often before the shard sleeps, sometimes while it falls asleep, sometimes long after.
        for (int spin = 0; spin < i * 10; ++spin) std::this_thread::yield();
        shard.post(knock);
      });
      co_await knock.event().wait();
      thread.join();
    }
  };
  ASSERT_TRUE(run(1, body).ok());
}

void ignore_signal(int) {}

TEST_P(LoopTest, ASignalDoesNotDisturbASleep) {
  struct sigaction action {
  }, before{};
  action.sa_handler = &ignore_signal;  // without SA_RESTART
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  const pthread_t self = pthread_self();
  std::atomic<bool> done = false;
  auto body = [&](Shard& shard) -> Task<void> {
    std::thread thread([&] {
      while (!done) {
        pthread_kill(self, SIGUSR1);
        std::this_thread::yield();
      }
    });
    Instant start = system_clock().now();
    Result<void> slept = co_await shard.sleep(milliseconds(30));
    EXPECT_TRUE(slept.ok());
    EXPECT_GE(system_clock().now() - start, milliseconds(30));
    done = true;
    thread.join();
  };
  ASSERT_TRUE(run(1, body).ok());
  sigaction(SIGUSR1, &before, nullptr);
}

RINGDISK_ON_BOTH_LOOPS(LoopTest);

}  // namespace
}  // namespace ringdisk
