// SPDX-License-Identifier: Apache-2.0
// One ring, used through liburing. user_data of an entry is the IoRequest's address; kWakeTag marks
// the read of the eventfd by which other threads wake a sleeping shard, kIgnoreTag entries whose
// completion nobody waits for (cancels).
#include "runtime/uring_loop.h"

#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <vector>

#include "base/check.h"

// Newer than Debian 12's liburing headers; values from the kernel's include/uapi/linux/io_uring.h.
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

namespace ringdisk {
namespace {

constexpr unsigned kEntries = 256;
constexpr unsigned kCompletionEntries = 4096;
constexpr unsigned kFileSlots = 256;
constexpr unsigned kBufferSlots = 64;
constexpr int kSubmitAttemptsMax = 10'000;
constexpr uint64_t kWakeTag = 1;
constexpr uint64_t kIgnoreTag = 2;

class UringLoop final : public Loop {
 public:
  ~UringLoop() override;
  Result<void> open();

  std::string_view name() const override { return "io_uring"; }
  bool start(IoRequest& request) override;
  void cancel(IoRequest& request) override;
  uint32_t poll(std::optional<Duration> sleep_max) override;
  void wake() override;
  int register_file(int fd) override;
  void unregister_file(int slot) override;
  int register_buffers(MutableBytes region) override;

 private:
  io_uring_sqe& next_entry();
  void submit();
  void prepare_transfer(io_uring_sqe& entry, IoRequest& request);
  void arm_wake();
  bool has_deferred_work() const;
  uint32_t reap();
  void wait_for_completion(std::optional<Duration> sleep_max);

  // this shard only
  io_uring ring_{};
  bool is_open_ = false;
  unsigned in_flight_ = 0;  // requests of coroutines
  bool wake_armed_ = false;
  uint64_t wake_count_ = 0;  // what the eventfd read fills
  std::vector<int> free_file_slots_;
  bool has_file_table_ = false;
  unsigned buffer_slots_used_ = 0;
  bool has_buffer_table_ = false;

  // constant after open; written to by any thread
  int event_fd_ = -1;
};

UringLoop::~UringLoop() {
  CHECK_EQ(in_flight_, 0u);
  if (is_open_) io_uring_queue_exit(&ring_);
  if (event_fd_ >= 0) close(event_fd_);
}

Result<void> UringLoop::open() {
  event_fd_ = eventfd(0, EFD_CLOEXEC);
  if (event_fd_ < 0) return Error::from_errno(errno, "eventfd");
  // From the newest kernels down to the oldest that is of use (5.15).
  const unsigned flag_sets[] = {
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
          IORING_SETUP_CQSIZE,
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
          IORING_SETUP_CQSIZE,
      IORING_SETUP_CQSIZE,
  };
  int failure = ENOSYS;
  for (unsigned flags : flag_sets) {
    io_uring_params params{};
    params.flags = flags;
    params.cq_entries = kCompletionEntries;
    failure = -io_uring_queue_init_params(kEntries, &ring_, &params);
    if (failure == 0) break;
  }
  if (failure != 0) {
    Error error = Error::from_errno(failure, "io_uring_setup");
    error.kind = ErrorKind::kUnsupported;
    return error;
  }
  is_open_ = true;
  has_file_table_ = io_uring_register_files_sparse(&ring_, kFileSlots) == 0;
  for (unsigned slot = kFileSlots; has_file_table_ && slot-- != 0;) {
    free_file_slots_.push_back(static_cast<int>(slot));
  }
  has_buffer_table_ = io_uring_register_buffers_sparse(&ring_, kBufferSlots) == 0;
  arm_wake();
  return {};
}

io_uring_sqe& UringLoop::next_entry() {
  for (int attempts = 0; attempts < kSubmitAttemptsMax; ++attempts) {
    if (io_uring_sqe* entry = io_uring_get_sqe(&ring_)) return *entry;
    submit();  // the submission queue is full: hand over what is there
    if (io_uring_sq_space_left(&ring_) == 0) reap();
  }
  UNREACHABLE("the kernel takes no submissions, though completions have been taken off it");
}

// Hands the kernel what is queued; deferred task work runs in this call too. What it does not take
// (it is short of memory, or waits for completions to be taken: EAGAIN, EBUSY) stays queued for the
// next time.
void UringLoop::submit() {
  int submitted = io_uring_submit_and_get_events(&ring_);
  CHECK(submitted >= 0 || submitted == -EAGAIN || submitted == -EBUSY || submitted == -EINTR);
}

void UringLoop::arm_wake() {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_read(&entry, event_fd_, &wake_count_, sizeof wake_count_, 0);
  entry.user_data = kWakeTag;
  wake_armed_ = true;
}

void UringLoop::prepare_transfer(io_uring_sqe& entry, IoRequest& request) {
  const bool is_read = request.opcode == IoOpcode::kReadv;
  const iovec& part = request.parts ? request.parts[0] : request.single;
  if (request.part_count > 1) {
    if (is_read) {
      io_uring_prep_readv(&entry, request.fd, request.parts, request.part_count, request.offset);
    } else {
      io_uring_prep_writev(&entry, request.fd, request.parts, request.part_count, request.offset);
    }
  } else if (request.fixed_buffer >= 0) {
    auto length = static_cast<unsigned>(part.iov_len);
    if (is_read) {
      io_uring_prep_read_fixed(&entry, request.fd, part.iov_base, length, request.offset,
                               request.fixed_buffer);
    } else {
      io_uring_prep_write_fixed(&entry, request.fd, part.iov_base, length, request.offset,
                                request.fixed_buffer);
    }
  } else {
    auto length = static_cast<unsigned>(part.iov_len);
    if (is_read) {
      io_uring_prep_read(&entry, request.fd, part.iov_base, length, request.offset);
    } else {
      io_uring_prep_write(&entry, request.fd, part.iov_base, length, request.offset);
    }
  }
  if (!is_read && request.dsync) entry.rw_flags = RWF_DSYNC;
}

bool UringLoop::start(IoRequest& request) {
  io_uring_sqe& entry = next_entry();
  switch (request.opcode) {
    case IoOpcode::kReadv:
    case IoOpcode::kWritev:
      prepare_transfer(entry, request);
      break;
    case IoOpcode::kSync:
      io_uring_prep_fsync(&entry, request.fd, IORING_FSYNC_DATASYNC);
      break;
    case IoOpcode::kAllocate:
      // why the casts: liburing 2.3 declares off_t, which is signed; offsets are below kOffsetMax
      io_uring_prep_fallocate(&entry, request.fd, request.mode, static_cast<off_t>(request.offset),
                              static_cast<off_t>(request.length));
      break;
    case IoOpcode::kPollIn:
      io_uring_prep_poll_add(&entry, request.fd, POLLIN);
      break;
    case IoOpcode::kPollOut:
      io_uring_prep_poll_add(&entry, request.fd, POLLOUT);
      break;
  }
  if (request.fixed_file >= 0) {
    entry.fd = request.fixed_file;
    entry.flags |= IOSQE_FIXED_FILE;
  }
  if (request.may_block) entry.flags |= IOSQE_ASYNC;
  entry.user_data = reinterpret_cast<uint64_t>(&request);  // why: the kernel hands the address back
  ++in_flight_;
  return true;
}

void UringLoop::cancel(IoRequest& request) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_cancel(&entry, &request, 0);
  entry.user_data = kIgnoreTag;
}

uint32_t UringLoop::reap() {
  uint32_t woken = 0;
  unsigned seen = 0;
  unsigned head = 0;
  io_uring_cqe* completion = nullptr;
  io_uring_for_each_cqe(&ring_, head, completion) {
    ++seen;
    if (completion->user_data == kWakeTag) {
      wake_armed_ = false;
      ++woken;
    } else if (completion->user_data != kIgnoreTag) {
      // why: the address given at submission comes back
      auto& request = *reinterpret_cast<IoRequest*>(completion->user_data);
      request.result = completion->res;
      --in_flight_;
      ++woken;
      request.wake();
    }
  }
  io_uring_cq_advance(&ring_, seen);
  return woken;
}

void UringLoop::wait_for_completion(std::optional<Duration> sleep_max) {
  __kernel_timespec limit{};
  if (sleep_max) {
    limit.tv_sec = sleep_max->count() / 1'000'000'000;
    limit.tv_nsec = sleep_max->count() % 1'000'000'000;
  }
  io_uring_cqe* completion = nullptr;
  int result = io_uring_submit_and_wait_timeout(&ring_, &completion, 1,
                                                sleep_max ? &limit : nullptr, nullptr);
  CHECK(result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN ||
        result == -EBUSY);
}

// The kernel has completions, or work that leads to them, which wait for us to enter it. A load,
// not a system call.
bool UringLoop::has_deferred_work() const {
  const unsigned flags =
      std::atomic_ref<unsigned>(*ring_.sq.kflags).load(std::memory_order_acquire);
  return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

uint32_t UringLoop::poll(std::optional<Duration> sleep_max) {
  if (!wake_armed_) arm_wake();
  const bool sleeps = !sleep_max || *sleep_max > Duration::zero();
  if (sleeps && io_uring_cq_ready(&ring_) == 0) {
    wait_for_completion(sleep_max);
  } else if (io_uring_sq_ready(&ring_) != 0) {
    submit();
  } else if (has_deferred_work()) {
    io_uring_get_events(&ring_);
  }
  return reap();
}

void UringLoop::wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the shard is being woken anyway.
  if (write(event_fd_, &one, sizeof one) < 0) return;
}

int UringLoop::register_file(int fd) {
  if (free_file_slots_.empty()) return -1;
  int slot = free_file_slots_.back();
  if (io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &fd, 1) != 1) return -1;
  free_file_slots_.pop_back();
  return slot;
}

void UringLoop::unregister_file(int slot) {
  if (slot < 0) return;
  const int none = -1;
  CHECK_EQ(io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &none, 1), 1);
  free_file_slots_.push_back(slot);
}

int UringLoop::register_buffers(MutableBytes region) {
  if (!has_buffer_table_ || buffer_slots_used_ == kBufferSlots) return -1;
  const iovec part{region.data(), region.size()};
  const __u64 tag = 0;
  unsigned slot = buffer_slots_used_;
  if (io_uring_register_buffers_update_tag(&ring_, slot, &part, &tag, 1) < 0) return -1;
  ++buffer_slots_used_;
  return static_cast<int>(slot);
}

}  // namespace

Result<std::unique_ptr<Loop>> make_uring_loop() {
  auto loop = std::make_unique<UringLoop>();
  RETURN_IF_ERROR(loop->open());
  return std::unique_ptr<Loop>(std::move(loop));
}

}  // namespace ringdisk
