// SPDX-License-Identifier: Apache-2.0
//
// The ways of ways.h that need no thread of their own. They are as plain as the loops that will use
// them: no retry of short transfers, no cancellation; a measuring run has neither.

#include "ways.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "cell.h"

namespace ringdisk::bench {

namespace {

constexpr int kPunchMode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr int kZeroMode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

class InPlaceWay : public Way {
 public:
  int open(const Target& target) override {
    file_ = target.file;
    return 0;
  }

  void submit(const Operation& operation) override {
    done_.push_back({operation.slot, run_in_place(file_, operation, 0)});
    ++count_in_place_;
  }

  size_t wait(std::span<Completion> room) override { return take(done_, room); }

 private:
  int file_ = -1;
  std::vector<Completion> done_;
};

struct RingOptions {
  unsigned setup = 0;
  bool fixed = false;  // registered file and buffers
  bool async = false;  // IOSQE_ASYNC: straight to a worker
  bool split = false;  // submit, then wait: two calls, the first one timed
};

class RingWay : public Way {
 public:
  explicit RingWay(const RingOptions& options) : options_(options) {}

  ~RingWay() override {
    if (opened_) io_uring_queue_exit(&ring_);
  }

  int open(const Target& target) override {
    file_ = target.file;
    const int status = io_uring_queue_init(std::max(target.depth, 8u), &ring_, options_.setup);
    if (status < 0) return -status;
    opened_ = true;
    if (!options_.fixed) return 0;
    const iovec all{target.memory.data(), target.memory.size()};
    const int files = io_uring_register_files(&ring_, &file_, 1);
    if (files < 0) return -files;
    file_ = 0;  // from here on an index
    return -io_uring_register_buffers(&ring_, &all, 1);
  }

  void submit(const Operation& operation) override {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    prepare(sqe, operation);
    unsigned flags = 0;
    if (options_.fixed) flags |= IOSQE_FIXED_FILE;
    if (options_.async) flags |= IOSQE_ASYNC;
    io_uring_sqe_set_flags(sqe, flags);
    sqe->user_data = operation.slot;
  }

  size_t wait(std::span<Completion> room) override {
    if (options_.split) time_submission();
    io_uring_submit_and_wait(&ring_, 1);
    io_uring_cqe* cqe = nullptr;
    unsigned head = 0;
    size_t count = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      if (count == room.size()) break;
      room[count++] = {static_cast<uint32_t>(cqe->user_data), cqe->res};
    }
    io_uring_cq_advance(&ring_, static_cast<unsigned>(count));
    return count;
  }

 private:
  void prepare(io_uring_sqe* sqe, const Operation& op) {
    const off_t offset = static_cast<off_t>(op.offset);
    const off_t length = static_cast<off_t>(op.length);
    switch (op.verb) {
      case Verb::kRead:
        if (options_.fixed) {
          return io_uring_prep_read_fixed(sqe, file_, op.buffer, op.length, op.offset, 0);
        }
        return io_uring_prep_read(sqe, file_, op.buffer, op.length, op.offset);
      case Verb::kWrite:
        if (options_.fixed) {
          return io_uring_prep_write_fixed(sqe, file_, op.buffer, op.length, op.offset, 0);
        }
        return io_uring_prep_write(sqe, file_, op.buffer, op.length, op.offset);
      case Verb::kDataSync:
        return io_uring_prep_fsync(sqe, file_, IORING_FSYNC_DATASYNC);
      case Verb::kAllocate:
        return io_uring_prep_fallocate(sqe, file_, 0, offset, length);
      case Verb::kPunch:
        return io_uring_prep_fallocate(sqe, file_, kPunchMode, offset, length);
      case Verb::kZero:
        return io_uring_prep_fallocate(sqe, file_, kZeroMode, offset, length);
    }
  }

  void time_submission() {
    const double start = now_seconds();
    io_uring_submit(&ring_);
    longest_submit_us_ = std::max(longest_submit_us_, (now_seconds() - start) * 1e6);
  }

  const RingOptions options_;
  io_uring ring_{};
  bool opened_ = false;
  int file_ = -1;
};

constexpr unsigned kDefer = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;

// In place while nothing blocks; what would block, or came back short, goes to a ring whole.
class NowaitWay : public Way {
 public:
  int open(const Target& target) override {
    file_ = target.file;
    return ring_.open(target);
  }

  void submit(const Operation& operation) override {
    const bool moves_bytes = operation.verb == Verb::kRead || operation.verb == Verb::kWrite;
    const int64_t result = moves_bytes ? run_in_place(file_, operation, RWF_NOWAIT) : -ENOTSUP;
    const bool partly = result >= 0 && result < operation.length;
    if (result == -EAGAIN || partly) return ring_.submit(operation);
    ++count_in_place_;
    done_.push_back({operation.slot, result});
  }

  size_t wait(std::span<Completion> room) override {
    if (!done_.empty()) return take(done_, room);
    return ring_.wait(room);
  }

 private:
  int file_ = -1;
  RingWay ring_{RingOptions{.setup = kDefer}};
  std::vector<Completion> done_;
};

// In place, until a call is slow: the kernel makes whoever dirties too many pages sleep, 10 to
// 200 ms each time. From then on, for a time that doubles while it happens again, workers sleep.
class GuardedWay : public Way {
 public:
  int open(const Target& target) override {
    file_ = target.file;
    return ring_.open(target);
  }

  void submit(const Operation& operation) override {
    const double start = now_seconds();
    if (start < ring_until_) return ring_.submit(operation);
    done_.push_back({operation.slot, run_in_place(file_, operation, 0)});
    ++count_in_place_;
    const double end = now_seconds();
    if (end - start < kSlowSeconds) return;
    const bool again = start - ring_until_ < back_off_;
    back_off_ = again ? std::min(2 * back_off_, kBackOffSecondsMax) : kBackOffSecondsMin;
    ring_until_ = end + back_off_;
  }

  size_t wait(std::span<Completion> room) override {
    if (!done_.empty()) return take(done_, room);
    return ring_.wait(room);
  }

 private:
  static constexpr double kSlowSeconds = 1e-3;
  static constexpr double kBackOffSecondsMin = 0.1;
  static constexpr double kBackOffSecondsMax = 1.6;

  int file_ = -1;
  double ring_until_ = 0;
  double back_off_ = kBackOffSecondsMin;
  RingWay ring_{RingOptions{.setup = kDefer, .async = true}};
  std::vector<Completion> done_;
};

// A buffered write that begins or ends inside a page not in the cache makes the kernel read that
// page, and the caller wait. So: look for the page of the first and the last byte without blocking,
// read what is missing through the ring, and only then write in place.
class ReadFirstWay : public Way {
 public:
  int open(const Target& target) override {
    file_ = target.file;
    pending_.resize(target.depth);
    scratch_.resize(target.depth);
    return ring_.open(target);
  }

  void submit(const Operation& operation) override {
    pending_[operation.slot] = {operation, 0};
    if (advance(pending_[operation.slot])) ++count_in_place_;
  }

  size_t wait(std::span<Completion> room) override {
    while (done_.empty()) {
      const size_t count = ring_.wait(room);
      for (size_t i = 0; i < count; ++i) advance(pending_[room[i].slot]);
    }
    return take(done_, room);
  }

 private:
  static constexpr uint64_t kPageBytes = 4096;

  struct Pending {
    Operation operation;
    int edges_seen;
  };

  // True when the write has been done.
  bool advance(Pending& pending) {
    const Operation& write = pending.operation;
    const uint64_t end = write.offset + write.length;
    const std::array<uint64_t, 2> edges{write.offset, end - 1};
    while (pending.edges_seen < 2) {
      const uint64_t edge = edges[static_cast<size_t>(pending.edges_seen++)];
      const bool whole_page = (edge == write.offset ? edge : end) % kPageBytes == 0;
      if (whole_page) continue;
      const Operation probe{Verb::kRead, write.slot, 1, edge, &scratch_[write.slot]};
      if (run_in_place(file_, probe, RWF_NOWAIT) != -EAGAIN) continue;
      ring_.submit(probe);
      return false;
    }
    done_.push_back({write.slot, run_in_place(file_, write, 0)});
    return true;
  }

  int file_ = -1;
  RingWay ring_{RingOptions{.setup = kDefer}};
  std::vector<Pending> pending_;
  std::vector<std::byte> scratch_;
  std::vector<Completion> done_;
};

}  // namespace

size_t take(std::vector<Completion>& from, std::span<Completion> room) {
  const size_t count = std::min(from.size(), room.size());
  std::copy_n(from.end() - static_cast<ptrdiff_t>(count), count, room.begin());
  from.resize(from.size() - count);
  return count;
}

int64_t run_in_place(int file, const Operation& op, int flags) {
  const off_t offset = static_cast<off_t>(op.offset);
  const off_t length = static_cast<off_t>(op.length);
  const iovec range{op.buffer, op.length};
  int64_t result = -1;
  switch (op.verb) {
    case Verb::kRead:
      result = flags == 0 ? pread(file, op.buffer, op.length, offset)
                          : preadv2(file, &range, 1, offset, flags);
      break;
    case Verb::kWrite:
      result = flags == 0 ? pwrite(file, op.buffer, op.length, offset)
                          : pwritev2(file, &range, 1, offset, flags);
      break;
    case Verb::kDataSync:
      result = fdatasync(file);
      break;
    case Verb::kAllocate:
      result = fallocate(file, 0, offset, length);
      break;
    case Verb::kPunch:
      result = fallocate(file, kPunchMode, offset, length);
      break;
    case Verb::kZero:
      result = fallocate(file, kZeroMode, offset, length);
      break;
  }
  return result < 0 ? -errno : result;
}

std::unique_ptr<Way> make_way(const std::string& name) {
  const auto ring = [](const RingOptions& options) { return std::make_unique<RingWay>(options); };
  if (name == "in place") return std::make_unique<InPlaceWay>();
  if (name == "nowait") return std::make_unique<NowaitWay>();
  if (name == "guarded") return std::make_unique<GuardedWay>();
  if (name == "read first") return std::make_unique<ReadFirstWay>();
  if (name == "ring plain") return ring({});
  if (name == "ring coop") return ring({.setup = IORING_SETUP_COOP_TASKRUN});
  if (name == "ring defer") return ring({.setup = kDefer});
  if (name == "ring fixed") return ring({.setup = kDefer, .fixed = true});
  if (name == "ring async") return ring({.setup = kDefer, .async = true});
  if (name == "ring split") return ring({.setup = kDefer, .split = true});
  if (name == "aio") return make_aio_way();
  if (name == "pool 4") return make_pool_way(4);
  if (name == "pool 16") return make_pool_way(16);
  return nullptr;
}

}  // namespace ringdisk::bench
