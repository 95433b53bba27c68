// SPDX-License-Identifier: Apache-2.0
//
// The ways bytes can reach a file, behind one small face: submit operations, wait for at least one
// completion. Each way is what one shard would own: it is used by the thread that opened it.
//
//   in place   pread/pwrite/fdatasync/fallocate, called where they are submitted
//   nowait     preadv2/pwritev2 with RWF_NOWAIT in place; what would block goes to a ring
//   read first a write in place, after the ring has read the blocks it covers only a part of
//   guarded    in place, but for a while by ring workers after a call that took longer than 1 ms
//   ring …     io_uring: no flags; COOP_TASKRUN; SINGLE_ISSUER + DEFER_TASKRUN ("defer"); defer
//              with registered file and buffers ("fixed"); defer with IOSQE_ASYNC ("async");
//              defer with submission and wait as two calls, to time the first ("split")
//   aio        io_submit, completions told by an eventfd under epoll; blocks in io_submit where a
//              file system cannot do without, so it is for O_DIRECT only
//   pool N     N threads, a locked queue, completions told by an eventfd under epoll

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace ringdisk::bench {

enum class Verb { kRead, kWrite, kDataSync, kAllocate, kPunch, kZero };

struct Operation {
  Verb verb = Verb::kRead;
  uint32_t slot = 0;  // below the depth; names the operation in its completion
  uint32_t length = 0;
  uint64_t offset = 0;
  std::byte* buffer = nullptr;
};

struct Completion {
  uint32_t slot = 0;
  int64_t result = 0;  // bytes, or -errno
};

// What a way is opened on: the file, and all the memory its operations will use.
struct Target {
  int file = -1;
  std::span<std::byte> memory;
  uint32_t depth = 1;
};

class Way {
 public:
  virtual ~Way() = default;

  // 0 or an errno.
  virtual int open(const Target& target) = 0;
  virtual void submit(const Operation& operation) = 0;
  // Blocks until one operation at least is done; gives as many as `room` holds.
  virtual size_t wait(std::span<Completion> room) = 0;

  uint64_t count_in_place() const { return count_in_place_; }
  double longest_submit_us() const { return longest_submit_us_; }

 protected:
  uint64_t count_in_place_ = 0;
  double longest_submit_us_ = -1;
};

// Runs one operation here and now. `flags` are RWF_… and apply to reads and writes.
int64_t run_in_place(int file, const Operation& operation, int flags);

// Moves as many as fit from the end of `from` to `room`.
size_t take(std::vector<Completion>& from, std::span<Completion> room);

std::unique_ptr<Way> make_aio_way();
std::unique_ptr<Way> make_pool_way(unsigned threads);

// `name` is one of those in cases.cc; null for any other.
std::unique_ptr<Way> make_way(const std::string& name);

}  // namespace ringdisk::bench
