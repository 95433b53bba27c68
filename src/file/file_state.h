// SPDX-License-Identifier: Apache-2.0
// FileState: what the queues of one open file share. Owned by the FileNode, which outlives its
// queues; any thread.
//
// It keeps the file's size, what the file system has turned out not to be able to do, whether there
// is anything to flush, and the first error of a flush for ever: Linux reports a failed write-back
// once and then takes the lost pages for clean, so a later fdatasync that succeeds would prove
// nothing.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/result.h"
#include "block/options.h"
#include "file/file_facts.h"

namespace ringdisk {
class BlockingPool;
}

namespace ringdisk::file {

// How the user wants a node, beyond what opening it needs.
struct FileSettings {
  CacheMode cache = CacheMode::kWriteback;
  bool read_only = false;
  bool discard = true;
};

class FileState {
 public:
  FileState(int file, const FileFacts& file_facts, FileSettings file_settings, uint32_t node_id,
            BlockingPool& pool)
      : fd(file),
        node(node_id),
        facts(file_facts),
        settings(file_settings),
        blocking(pool),
        size_(file_facts.size) {}

  // constant after open
  const int fd;
  const uint32_t node;
  const FileFacts facts;
  const FileSettings settings;
  BlockingPool& blocking;

  bool is_direct() const { return file::is_direct(settings.cache); }
  bool is_regular() const { return facts.kind != FileKind::kDevice; }

  uint64_t size() const { return size_.load(std::memory_order_acquire); }
  void grow_to(uint64_t size);
  void set_size(uint64_t size) { size_.store(size, std::memory_order_release); }

  // Found out by trying; never true again once it was false.
  std::atomic<bool> seeks{true};      // SEEK_DATA, SEEK_HOLE
  std::atomic<bool> punches{true};    // FALLOC_FL_PUNCH_HOLE
  std::atomic<bool> zeroes{true};     // FALLOC_FL_ZERO_RANGE
  std::atomic<bool> allocates{true};  // fallocate
  // Buffered writes with RWF_NOWAIT: see note_nowait_write.
  bool knows_nowait_writes() const;
  void note_nowait_write(bool succeeded, bool unsupported);

  // Counts what may have made holes, so that what was once seen as content is looked at again.
  void note_hole() { holes_made_.fetch_add(1); }
  uint64_t holes_made() const { return holes_made_.load(); }

  // Something was changed that a flush has to make durable. Called after the change, before it is
  // reported.
  void note_change() { changes_.fetch_add(1); }
  // Whether every change so far is durable already. `changes` is what a flush that begins now
  // covers.
  bool needs_flush(uint64_t& changes) const;
  void begin_flush() { flushes_running_.fetch_add(1); }
  // `errno_value` 0: it succeeded, for everything up to `changes`.
  void end_flush(uint64_t changes, int errno_value);
  bool is_flush_running() const { return flushes_running_.load(std::memory_order_relaxed) != 0; }
  // A write that was to be durable could not be made so.
  void note_lost_write(int errno_value);
  // The errno of the first flush that failed, or 0.
  int broken_errno() const { return broken_errno_.load(); }

 private:
  // The first flush of a node is not believed to have covered what came before it: others may have
  // written.
  static constexpr uint32_t kFlushesBeforeSkip = 2;
  static constexpr uint32_t kNowaitTries = 8;

  std::atomic<uint64_t> size_;
  std::atomic<uint32_t> nowait_refusals_{0};
  std::atomic<bool> nowait_works_{false};
  std::atomic<bool> nowait_unsupported_{false};
  // All of the following sequentially consistent: a flush must not miss a change that completed
  // before it.
  std::atomic<uint64_t> holes_made_{0};
  std::atomic<uint64_t> changes_{0};
  std::atomic<uint64_t> flushed_changes_{0};
  std::atomic<uint32_t> good_flushes_{0};
  std::atomic<uint32_t> flushes_running_{0};
  std::atomic<int> broken_errno_{0};
};

}  // namespace ringdisk::file
