// SPDX-License-Identifier: Apache-2.0
// FileQueue: one shard's way to an open file. Owned by whoever opened it, on that shard; shares
// FileState with the node's other queues. Which way each operation takes is file/file_ways.h; short
// transfers, EINTR and EAGAIN are this class's secret.
//
//   file_queue.cc         read / write ─> pieces ─> in place, or the loop ─> all bytes or an error
//   file_queue_space.cc   write_zeroes, discard, allocate, resize
//   file_queue_flush.cc   flush: one running, one to come that all share who ask meanwhile
//   file_queue_extent.cc  find_extent: SEEK_DATA and SEEK_HOLE
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>

#include "async/event.h"
#include "async/mutex.h"
#include "block/storage.h"
#include "file/file_state.h"
#include "file/file_ways.h"
#include "file/slow_call_guard.h"
#include "runtime/loop.h"

namespace ringdisk::file {

class FileQueue final : public StorageQueue {
 public:
  FileQueue(FileState& state, Shard& shard);
  ~FileQueue() override;

  Task<void> read(HostOffset offset, MutableBuffers target) override;
  Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options) override;
  Task<void> write_zeroes(HostRange range, ZeroOptions options) override;
  Task<void> discard(HostRange range) override;
  Task<void> flush() override;
  Task<StorageExtent> find_extent(HostRange range) override;
  Task<void> resize(ByteCount size) override;
  Task<void> allocate(HostRange range) override;

 private:
  // What one system call moves: memory, and where in the file it belongs.
  static constexpr size_t kPartsMax = 16;
  struct Piece {
    uint64_t offset = 0;
    size_t length = 0;
    uint32_t part_count = 0;
    std::array<iovec, kPartsMax> parts;
  };
  template <class Buffers>
  static void cut_piece(const Buffers& buffers, size_t done, uint64_t offset, size_t length_max,
                        Piece& piece);

  // Bytes moved, or a negated errno.
  int64_t read_in_place(const Piece& piece, int flags) const;
  int64_t write_in_place(const Piece& piece, int flags);
  IoRequest request_for(const Piece& piece, IoOpcode opcode, FileWay way) const;
  Task<void> wait_for_turn();

  Task<size_t> read_piece(HostOffset offset, const MutableBuffers& target, size_t done);
  Task<void> write_piece(HostOffset offset, const ConstBuffers& source, size_t& done, bool durable);
  Task<int64_t> write_by_loop(const Piece& piece, FileWay way, bool durable);
  Task<void> write_all(HostOffset offset, const ConstBuffers& source, bool durable);
  Task<void> write_past_end(HostOffset offset, const ConstBuffers& source, bool durable);
  Task<void> write_durably(HostOffset offset, const ConstBuffers& source);
  Task<void> read_cold_edges(uint64_t begin, uint64_t end);
  Task<void> read_edge_if_cold(uint64_t at);
  WriteSituation situation_of(uint64_t end, bool durable) const;

  // 0 or a negated errno.
  Task<int32_t> call_fallocate(int mode, HostRange range);
  Task<bool> try_fallocate(int mode, HostRange range, std::atomic<bool>& works,
                           const char* operation);
  Task<bool> try_zero(HostRange range, bool may_unmap);
  Task<bool> try_punch(HostRange range, const char* operation);
  Task<bool> try_grow(HostRange range);
  Task<void> write_out_zeroes(HostRange range);

  Task<void> make_durable();
  Task<void> run_flush();
  Task<StorageExtent> seek_extent(HostRange range);

  Error error_of(int errno_value, const char* operation, uint64_t offset) const;
  // -EINTR, -EAGAIN: the call is made again, but not for ever. False: `result` is an answer.
  bool is_to_repeat(int64_t result, uint32_t& repeats) const;

  FileState& state_;
  Shard& shard_;
  Loop& loop_;
  const int fixed_file_;  // the loop's slot for the file, or -1

  // this shard only
  SlowCallGuard write_guard_;
  size_t turn_bytes_ = 0;      // moved in place since the loop last had a turn
  bool turn_pending_ = false;  // somebody is waiting for the turn that resets it
  Mutex past_end_;             // O_DIRECT writes past the end, one at a time
  bool flush_running_ = false;
  uint64_t flushes_begun_ = 0;
  uint64_t flushes_ended_ = 0;
  Event flush_ended_;
  HostRange known_content_;  // a stretch that is no hole, as was once seen
  uint64_t known_at_ = 0;    // when: FileState::holes_made()
};

}  // namespace ringdisk::file
