// SPDX-License-Identifier: Apache-2.0
// Compactor: in-place compaction of an image. What lies at the end of its file moves down into
// holes, and the file is cut. Made for one compaction; home shard only; the image was opened for it
// alone, and nothing that was in memory of its tables is right afterwards.
//
//   pass    survey: what is in use, where would the file end without holes
//           scan: every pointer into the tail, of all tables, on all shards     tail_pointers.h
//           plan: places for what is there                                      tail_plan.h
//           moves, in batches; a crash leaves leaks at worst                    tail_mover.h
//           cut: refcounts of what was left are durable, then the file ends earlier
//
// The tail of a pass is bounded, and with it memory; large images take several passes. Passes end
// when one has gained nothing, or when what could be gained is hardly anything.
//
// A table of several clusters needs a hole that holds it whole. Where there is none, the tail
// begins as much earlier: all else in it fits the holes before it, and leaves one hole that does.
//
//   | ..x.x.xx.x | x.xx.x T T T |     T: no three holes side by side before it
//   | xxxxxxxxxx | . . .  T T T |     the pass after: T moves to where the tail begins
//
// Version 3 has its dirty bit set as long as this works, so that the next open for writing frees
// what a crash has left; in version 2 that stays, as leaks. Why the order is right:
// docs/decisions/0015-compaction.md.
#pragma once

#include <functional>

#include "async/cancel.h"
#include "block/format_admin.h"
#include "qcow2/compact/tail_mover.h"

namespace ringdisk::qcow2 {

// How much is done at once. Tests make them small.
struct CompactLimits {
  uint64_t tail_clusters = 512 << 10;  // of a pass
  size_t pointers_max = 1 << 20;       // that are remembered; 40 bytes each
  uint64_t batch_bytes = 64 * limits::kMiB;
  size_t batch_moves = 4096;
};

class Compactor {
 public:
  Compactor(HomeParts parts, CompactLimits limits, CancelToken cancel,
            std::function<void(CompactProgress)> on_progress);

  // kCorrupt: the image is damaged; nothing was changed from there on. A cancel ends it early, with
  // what was gained till then.
  Task<CompactReport> run();

 private:
  Result<void> refuse_damaged_bitmaps() const;
  Task<void> run_passes();
  Task<uint64_t> clusters_without_hole(const TailRoots& roots);
  Task<void> run_pass(uint64_t first, const TailRoots& roots);
  Task<void> carry_out(const TailPlan& plan, const TailScan& scan);
  Task<void> move_all(const TailPlan& plan, TailMover& mover);
  Task<void> cut();
  Task<void> clear_unknown_autoclear();
  Task<void> finish();
  void note_moved(uint64_t bytes);
  uint64_t file_clusters() const;
  uint64_t image_bytes() const;

  const HomeParts parts_;
  const Geometry geometry_;
  const CompactLimits limits_;
  const CancelToken cancel_;
  const std::function<void(CompactProgress)> on_progress_;
  TableEditor tables_;
  HostSpace space_;
  CompactReport report_;
  CompactProgress progress_;
  uint64_t moved_bytes_ = 0;
  uint64_t verified_from_ = 0;   // no pointer leads to what is free from here on
  uint64_t cut_end_ = 0;         // clusters
  uint64_t stuck_clusters_ = 0;  // of tables that found no hole in the last pass
  bool is_whole_ = true;
};

}  // namespace ringdisk::qcow2
