// SPDX-License-Identifier: Apache-2.0
// TailMover: carries out a TailPlan, batch by batch, in the order that a crash at any moment leaves
// leaks at worst. Home shard only but for the copying, which all shards do. No queue is in use, so
// there is nobody to freeze entries for and no pin to wait for.
//
//   1  refcounts of the new places go up; bytes are copied       nothing points there yet
//      flush: both are durable
//   2  pointers are rewritten, whole words within a sector       either place holds the bytes
//      flush
//   3  refcounts of the old places go down                       nothing points there any more
//
// What several tables share has several pointers; a crash between two of them leaves either place
// with the refcount of all: too high, which is a leak. The refcounts of 3 reach the disk with the
// flush of the next batch. A batch is of one kind, so that no table is moved while a pointer in it
// is rewritten.
//
// Guest data of an encrypted image is read and written through the view that deciphers it: its
// bytes depend on where they lie. Everything else is copied as it is.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "qcow2/compact/tail_plan.h"

namespace ringdisk::qcow2 {

class TailMover {
 public:
  // `pointers` outlive it.
  TailMover(HomeParts parts, const std::vector<TailPointer>& pointers)
      : parts_(parts), geometry_(parts.image.geometry), pointers_(pointers) {}

  // Of one kind, by `from`.
  Task<void> move(std::span<const TailMove> batch);
  Task<void> move_blocks(std::span<const BlockMove> batch);
  Task<void> move_refcount_table(ClusterRun to);

  // Whether all that was done is durable or was taken back: an error came before pointers changed.
  bool is_whole() const { return is_whole_; }

 private:
  enum class Direction : uint8_t { kRaise, kLower };
  struct Piece {
    uint64_t from, to, length;  // bytes
  };

  Task<void> prepare(std::span<const TailMove> batch, size_t& raised);
  Task<void> take_back(std::span<const TailMove> batch, size_t raised);
  Task<void> raise(const TailMove& move);
  Task<void> lower(const TailMove& move, uint64_t place);
  Task<void> count_stream(const TailMove& move, uint64_t place, Direction direction);
  uint64_t count_of(const TailMove& move) const;
  Task<void> load(ClusterIndex cluster);
  Task<void> set_refcounts(ClusterRun run, uint64_t refcount);

  bool is_ciphered(const TailMove& move) const {
    return move.kind == TailKind::kData && parts_.image.header.is_encrypted();
  }
  std::vector<Piece> pieces_of(std::span<const TailMove> batch) const;
  Task<void> copy(const std::vector<Piece>& pieces, bool is_ciphered);

  Task<void> rewrite(std::span<const TailMove> batch);

  const HomeParts parts_;
  const Geometry geometry_;
  const std::vector<TailPointer>& pointers_;
  bool is_whole_ = true;
};

}  // namespace ringdisk::qcow2
