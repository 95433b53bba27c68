// SPDX-License-Identifier: Apache-2.0
// Loop: how one shard talks to the kernel. Three stand behind this interface: UringLoop, EpollLoop
// (with a thread pool, for kernels and sandboxes without io_uring) and the simulator's SimLoop. A
// Loop belongs to its shard; only wake() may be called by others.
//
//   IoRequest request = IoRequest::read(fd, buffer, offset);
//   int32_t bytes = co_await loop.perform(request);         // bytes, or a negated errno, as the
//   system call
//
// The request lives in the awaiting coroutine's frame, and so does the memory the kernel sees;
// neither goes away before the request has completed, because a frame that waits is never
// destroyed.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "async/waiter.h"
#include "base/bytes.h"
#include "runtime/clock.h"

namespace ringdisk {

enum class IoOpcode : uint8_t {
  kReadv,     // preadv
  kWritev,    // pwritev
  kSync,      // fdatasync
  kAllocate,  // fallocate(mode, offset, length)
  kPollIn,    // readable, hung up or failed: result > 0
  kPollOut,
};

// One operation on its way. Made by the functions below.
struct IoRequest : Waiter {
  IoOpcode opcode;
  bool dsync = false;      // kWritev: durable when complete
  bool may_block = false;  // the file system would block: go to a worker at once (IOSQE_ASYNC)
  int fd = -1;
  int fixed_file = -1;    // slot given by Loop::register_file
  int fixed_buffer = -1;  // slot of the buffer region that holds `single`, for one-part transfers
  const iovec* parts = nullptr;  // null: `single` is the one part
  uint32_t part_count = 1;
  iovec single{};
  uint64_t offset = 0;
  uint64_t length = 0;  // kAllocate
  int mode = 0;         // kAllocate
  int32_t result = 0;   // set on completion

  static IoRequest readv(int fd, const iovec* parts, uint32_t count, uint64_t offset);
  static IoRequest writev(int fd, const iovec* parts, uint32_t count, uint64_t offset);
  static IoRequest read(int fd, MutableBytes target, uint64_t offset);
  static IoRequest write(int fd, Bytes source, uint64_t offset);
  static IoRequest sync(int fd);
  static IoRequest allocate(int fd, int mode, uint64_t offset, uint64_t length);
  static IoRequest poll(int fd, IoOpcode in_or_out);

  IoRequest(IoOpcode code, int file) : opcode(code), fd(file) {}
  // Moves only before it is performed.
  IoRequest(const IoRequest& other);
};

class Loop {
 public:
  virtual ~Loop() = default;

  virtual std::string_view name() const = 0;

  // Queues `request`; when it completes its result is set and it is woken. May complete at once:
  // then false, and the caller goes on without suspending.
  virtual bool start(IoRequest& request) = 0;
  // Asks that `request` end soon, with -ECANCELED if it has not happened. It still completes
  // exactly once.
  virtual void cancel(IoRequest& request) = 0;

  // Submits what is queued and wakes what has completed. Sleeps only if `sleep_max` says so: until
  // a completion, a wake(), or that long (nullopt: without a limit; zero: not at all). Gives the
  // number of completions.
  virtual uint32_t poll(std::optional<Duration> sleep_max) = 0;
  // Ends a sleep in poll(), now or the next one. Any thread.
  virtual void wake() = 0;

  // A slot that makes operations on `fd` cheaper, or -1 where the loop has none (use the fd then).
  virtual int register_file(int fd) = 0;
  virtual void unregister_file(int slot) = 0;
  // A slot for a memory region that lives as long as the loop, or -1.
  virtual int register_buffers(MutableBytes region) = 0;

  class Perform {
   public:
    Perform(Loop& loop, IoRequest& request) : loop_(loop), request_(request) {}
    bool await_ready() const noexcept { return false; }
    template <RingdiskPromise P>
    bool await_suspend(std::coroutine_handle<P> waiting) {
      request_.suspend(waiting);
      return loop_.start(request_);
    }
    int32_t await_resume() const { return request_.result; }

   private:
    Loop& loop_;
    IoRequest& request_;
  };
  Perform perform(IoRequest& request) { return Perform(*this, request); }
};

}  // namespace ringdisk
