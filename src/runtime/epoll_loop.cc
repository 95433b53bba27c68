// SPDX-License-Identifier: Apache-2.0
// Who waits for a file descriptor stands in `descriptors_`; one one-shot epoll registration a
// descriptor serves a reader and a writer. Finished file operations come back through `finished_`
// under a mutex and wake the loop by its eventfd.
#include "runtime/epoll_loop.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/check.h"

namespace ringdisk {
namespace {

constexpr int kEventsMax = 64;

// The system call for a file operation; gives bytes or a negated errno.
int32_t perform_blocking(IoRequest& request) {
  const iovec* parts = request.parts ? request.parts : &request.single;
  const int count = static_cast<int>(request.part_count);
  const auto offset = static_cast<off_t>(request.offset);
  ssize_t done = -1;
  do {
    switch (request.opcode) {
      case IoOpcode::kReadv:
        done = preadv(request.fd, parts, count, offset);
        break;
      case IoOpcode::kWritev:
        done = pwritev2(request.fd, parts, count, offset, request.dsync ? RWF_DSYNC : 0);
        break;
      case IoOpcode::kSync:
        done = fdatasync(request.fd);
        break;
      case IoOpcode::kAllocate:
        done = fallocate(request.fd, request.mode, offset, static_cast<off_t>(request.length));
        break;
      case IoOpcode::kPollIn:
      case IoOpcode::kPollOut:
        UNREACHABLE("polls do not go to worker threads");
    }
  } while (done < 0 && errno == EINTR);
  return done < 0 ? -errno : static_cast<int32_t>(done);
}

class EpollLoop final : public Loop {
 public:
  explicit EpollLoop(WorkerThreads& threads) : threads_(threads) {}
  ~EpollLoop() override;
  Result<void> open();

  std::string_view name() const override { return "epoll"; }
  bool start(IoRequest& request) override;
  void cancel(IoRequest& request) override;
  uint32_t poll(std::optional<Duration> sleep_max) override;
  void wake() override;
  int register_file(int) override { return -1; }
  void unregister_file(int) override {}
  int register_buffers(MutableBytes) override { return -1; }

 private:
  // A file operation at the worker threads.
  struct FileWork final : Work {
    EpollLoop* loop = nullptr;
    IoRequest* request = nullptr;
    void run(Blocking) override {
      request->result = perform_blocking(*request);
      loop->finish(*this);
    }
  };
  struct Waiting {
    IoRequest* in = nullptr;
    IoRequest* out = nullptr;
    bool is_registered = false;
  };

  static bool is_poll(const IoRequest& request) {
    return request.opcode == IoOpcode::kPollIn || request.opcode == IoOpcode::kPollOut;
  }
  void finish(FileWork& work);  // on a worker thread
  FileWork& take_work();
  void start_poll(IoRequest& request);
  void arm(int fd, Waiting& waiting);
  void complete(IoRequest& request, int32_t result);
  uint32_t handle_event(const epoll_event& event);
  uint32_t reap_finished();

  WorkerThreads& threads_;
  int epoll_fd_ = -1;
  int event_fd_ = -1;

  // this shard only
  std::unordered_map<int, Waiting> descriptors_;
  std::vector<std::unique_ptr<FileWork>> free_work_;
  std::vector<std::unique_ptr<FileWork>> busy_work_;
  unsigned in_flight_ = 0;

  std::mutex mutex_;  // guards finished_
  std::vector<FileWork*> finished_;
  std::vector<FileWork*> reaped_;  // this shard only: what finished_ is swapped with
};

EpollLoop::~EpollLoop() {
  CHECK_EQ(in_flight_, 0u);
  if (epoll_fd_ >= 0) close(epoll_fd_);
  if (event_fd_ >= 0) close(event_fd_);
}

Result<void> EpollLoop::open() {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd_ < 0) return Error::from_errno(errno, "epoll_create");
  event_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd_ < 0) return Error::from_errno(errno, "eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = event_fd_;
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, event_fd_, &event) < 0) {
    return Error::from_errno(errno, "epoll_ctl");
  }
  return {};
}

EpollLoop::FileWork& EpollLoop::take_work() {
  if (free_work_.empty()) {
    free_work_.push_back(std::make_unique<FileWork>());
    free_work_.back()->loop = this;
  }
  busy_work_.push_back(std::move(free_work_.back()));
  free_work_.pop_back();
  return *busy_work_.back();
}

bool EpollLoop::start(IoRequest& request) {
  ++in_flight_;
  if (is_poll(request)) {
    start_poll(request);
    return true;
  }
  FileWork& work = take_work();
  work.request = &request;
  threads_.submit(work);
  return true;
}

void EpollLoop::start_poll(IoRequest& request) {
  Waiting& waiting = descriptors_[request.fd];
  IoRequest*& place = request.opcode == IoOpcode::kPollIn ? waiting.in : waiting.out;
  CHECK(place == nullptr);  // one reader and one writer a stream
  place = &request;
  arm(request.fd, waiting);
}

void EpollLoop::arm(int fd, Waiting& waiting) {
  epoll_event event{};
  event.events =
      EPOLLONESHOT | (waiting.in ? EPOLLIN | EPOLLRDHUP : 0u) | (waiting.out ? EPOLLOUT : 0u);
  event.data.fd = fd;
  int failed =
      epoll_ctl(epoll_fd_, waiting.is_registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
  // A descriptor that was closed and opened again is no longer, or still, registered.
  if (failed < 0 && errno == ENOENT) failed = epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
  if (failed < 0 && errno == EEXIST) failed = epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event);
  if (failed == 0) {
    waiting.is_registered = true;
    return;
  }
  int errno_value = errno;
  if (waiting.in) complete(*std::exchange(waiting.in, nullptr), -errno_value);
  if (waiting.out) complete(*std::exchange(waiting.out, nullptr), -errno_value);
}

void EpollLoop::complete(IoRequest& request, int32_t result) {
  request.result = result;
  --in_flight_;
  request.wake();
}

void EpollLoop::cancel(IoRequest& request) {
  if (is_poll(request)) {
    Waiting& waiting = descriptors_[request.fd];
    IoRequest*& place = request.opcode == IoOpcode::kPollIn ? waiting.in : waiting.out;
    if (place != &request) return;  // already completed
    place = nullptr;
    complete(request, -ECANCELED);
    return;
  }
  for (std::unique_ptr<FileWork>& work : busy_work_) {
    if (work->request != &request || !threads_.try_withdraw(*work)) continue;
    request.result = -ECANCELED;
    finish(*work);
    return;
  }
}

void EpollLoop::finish(FileWork& work) {
  {
    std::lock_guard lock(mutex_);
    finished_.push_back(&work);
  }
  wake();
}

uint32_t EpollLoop::reap_finished() {
  {
    std::lock_guard lock(mutex_);
    std::swap(finished_, reaped_);
  }
  for (FileWork* work : reaped_) {
    IoRequest& request = *std::exchange(work->request, nullptr);
    auto is_it = [work](const std::unique_ptr<FileWork>& busy) { return busy.get() == work; };
    auto at = std::find_if(busy_work_.begin(), busy_work_.end(), is_it);
    CHECK(at != busy_work_.end());
    free_work_.push_back(std::move(*at));
    *at = std::move(busy_work_.back());
    busy_work_.pop_back();
    complete(request, request.result);
  }
  auto count = static_cast<uint32_t>(reaped_.size());
  reaped_.clear();
  return count;
}

uint32_t EpollLoop::handle_event(const epoll_event& event) {
  if (event.data.fd == event_fd_) {
    uint64_t count = 0;
    // Another look finds nothing to read; either way the shard is awake.
    return read(event_fd_, &count, sizeof count) < 0 ? 0 : 1;
  }
  Waiting& waiting = descriptors_[event.data.fd];
  constexpr uint32_t kAlways = EPOLLERR | EPOLLHUP;
  uint32_t woken = 0;
  if (waiting.in && (event.events & (EPOLLIN | EPOLLRDHUP | kAlways))) {
    complete(*std::exchange(waiting.in, nullptr), POLLIN);
    ++woken;
  }
  if (waiting.out && (event.events & (EPOLLOUT | kAlways))) {
    complete(*std::exchange(waiting.out, nullptr), POLLOUT);
    ++woken;
  }
  if (waiting.in || waiting.out) arm(event.data.fd, waiting);
  return woken;
}

uint32_t EpollLoop::poll(std::optional<Duration> sleep_max) {
  int timeout_ms = -1;
  if (sleep_max) {
    // Rounded up, so that a timer is due when the sleep ends.
    auto milliseconds = (sleep_max->count() + 999'999) / 1'000'000;
    timeout_ms = static_cast<int>(std::min<int64_t>(milliseconds, 60'000));
  }
  epoll_event events[kEventsMax];
  int count = epoll_wait(epoll_fd_, events, kEventsMax, timeout_ms);
  CHECK(count >= 0 || errno == EINTR);
  uint32_t woken = 0;
  for (int i = 0; i < count; ++i) woken += handle_event(events[i]);
  return woken + reap_finished();
}

void EpollLoop::wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the shard is being woken anyway.
  if (write(event_fd_, &one, sizeof one) < 0) return;
}

}  // namespace

Result<std::unique_ptr<Loop>> make_epoll_loop(WorkerThreads& threads) {
  auto loop = std::make_unique<EpollLoop>(threads);
  RETURN_IF_ERROR(loop->open());
  return std::unique_ptr<Loop>(std::move(loop));
}

}  // namespace ringdisk
