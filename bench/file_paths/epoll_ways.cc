// SPDX-License-Identifier: Apache-2.0
//
// The ways of ways.h for a loop that waits in epoll: Linux's older asynchronous I/O, and threads
// that make the blocking calls.

#include <linux/aio_abi.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "ways.h"

namespace ringdisk::bench {

namespace {

// What wakes a loop under epoll: an eventfd.
class Bell {
 public:
  int open() {
    event_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    epoll_event interest{.events = EPOLLIN, .data = {.fd = event_}};
    return epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &interest) == 0 ? 0 : errno;
  }

  void close() {
    ::close(epoll_);
    ::close(event_);
  }

  int event() const { return event_; }
  void ring() { eventfd_write(event_, 1); }

  void wait() {
    epoll_event event{};
    epoll_wait(epoll_, &event, 1, -1);
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t ignored = read(event_, &count, sizeof count);
  }

 private:
  int event_ = -1;
  int epoll_ = -1;
};

class AioWay : public Way {
 public:
  ~AioWay() override {
    if (context_ != 0) syscall(SYS_io_destroy, context_);
    bell_.close();
  }

  int open(const Target& target) override {
    file_ = target.file;
    blocks_.resize(target.depth);
    events_.resize(target.depth);
    if (syscall(SYS_io_setup, target.depth, &context_) != 0) return errno;
    return bell_.open();
  }

  void submit(const Operation& operation) override {
    iocb& block = blocks_[operation.slot];
    block = {};
    block.aio_data = operation.slot;
    block.aio_fildes = static_cast<uint32_t>(file_);
    block.aio_lio_opcode = operation.verb == Verb::kRead ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
    block.aio_buf = reinterpret_cast<uint64_t>(operation.buffer);
    block.aio_nbytes = operation.length;
    block.aio_offset = static_cast<int64_t>(operation.offset);
    block.aio_flags = IOCB_FLAG_RESFD;
    block.aio_resfd = static_cast<uint32_t>(bell_.event());
    batch_.push_back(&block);
  }

  size_t wait(std::span<Completion> room) override {
    if (!batch_.empty()) syscall(SYS_io_submit, context_, batch_.size(), batch_.data());
    batch_.clear();
    bell_.wait();
    timespec now{};
    const long count =
        syscall(SYS_io_getevents, context_, 0L, events_.size(), events_.data(), &now);
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      room[i] = {static_cast<uint32_t>(events_[i].data), events_[i].res};
    }
    return static_cast<size_t>(count);
  }

 private:
  int file_ = -1;
  aio_context_t context_ = 0;
  Bell bell_;
  std::vector<iocb> blocks_;
  std::vector<iocb*> batch_;
  std::vector<io_event> events_;
};

class PoolWay : public Way {
 public:
  explicit PoolWay(unsigned threads) : thread_count_(threads) {}

  ~PoolWay() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    submitted_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    bell_.close();
  }

  int open(const Target& target) override {
    file_ = target.file;
    const int error = bell_.open();
    if (error != 0) return error;
    for (unsigned i = 0; i < thread_count_; ++i) threads_.emplace_back([this] { work(); });
    return 0;
  }

  void submit(const Operation& operation) override {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(operation);
    }
    submitted_.notify_one();
  }

  size_t wait(std::span<Completion> room) override {
    for (;;) {
      {
        const std::lock_guard lock(mutex_);
        if (!done_.empty()) return take(done_, room);
      }
      bell_.wait();
    }
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      submitted_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      const Operation operation = queue_.front();
      queue_.pop_front();
      lock.unlock();
      const int64_t result = run_in_place(file_, operation, 0);
      lock.lock();
      done_.push_back({operation.slot, result});
      if (done_.size() == 1) bell_.ring();  // else the loop has been told already
    }
  }

  const unsigned thread_count_;
  int file_ = -1;
  Bell bell_;
  std::mutex mutex_;  // guards the three below
  std::deque<Operation> queue_;
  std::vector<Completion> done_;
  bool stopping_ = false;
  std::condition_variable submitted_;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<Way> make_aio_way() { return std::make_unique<AioWay>(); }

std::unique_ptr<Way> make_pool_way(unsigned threads) { return std::make_unique<PoolWay>(threads); }

}  // namespace ringdisk::bench
