// SPDX-License-Identifier: Apache-2.0
// Which pieces of the tail of an image's file go where (compactor.h). Home shard only.
//
//   a cluster         into the next hole; its order in the file stays
//   a table           of several clusters: into the lowest hole before it that holds it whole,
//                     one that the tail itself has from a pass before, too
//   a compressed      byte by byte behind its neighbour, into holes as long as they are; the sector
//   cluster's stream  that two streams share stays shared, and offsets within sectors stay
//   a refcount block  into a hole, unless nothing will be left that it counts
//   the encryption    stays: a copy of its key slots would be left behind in the hole that it made,
//   header            which no later change of them reaches (decision 0015)
//
// What cannot be moved stays, and the file ends behind it: a cluster whose refcount is higher than
// what is known to point at it (a leak, or a feature that nobody here knows), and what no hole
// holds. Where holes run short, what lies highest is moved.
//
// Every pointer changes by as much as what it names is moved by: raw + (to - from).
#pragma once

#include <string>
#include <vector>

#include "qcow2/compact/host_space.h"
#include "qcow2/compact/tail_pointers.h"

namespace ringdisk::qcow2 {

// One piece and the pointers at it, a range of TailScan::pointers().
struct TailMove {
  uint64_t from = 0, to = 0;  // bytes
  uint64_t length = 0;
  size_t first_pointer = 0;
  size_t pointers = 0;
  TailKind kind = TailKind::kData;
  bool is_kept = false;  // nobody sees what the place holds
};

struct BlockMove {
  uint64_t block = 0;
  ClusterIndex from, to;
};

struct TailPlan {
  std::vector<TailMove> moves;  // by kind, then by `from`
  std::vector<BlockMove> blocks;
  ClusterRun refcount_table;  // count 0: it stays
  // What stays, for people; the file cannot end before it.
  std::vector<std::string> obstacles;
  uint64_t stuck_clusters = 0;  // of tables for which there was no hole
};

class TailPlanner {
 public:
  // The tail begins at cluster `first`; from `end` on nothing is in use.
  TailPlanner(HomeParts parts, HostSpace& space, uint64_t first, uint64_t end);

  // Room for tables in one piece, before anybody else takes it. Then the holes to be filled.
  Task<void> reserve(const TailRoots& roots);
  Task<HoleSet> find_holes(uint64_t wanted);

  // kCorrupt: refcounts are too low, or two things claim a cluster. `scan` may have found that the
  // tail has to begin later.
  Task<TailPlan> make(const TailScan& scan);

 private:
  struct Room {
    uint64_t from = 0;  // byte
    uint64_t to = 0;    // byte; 0: there is none
    uint64_t length = 0;
  };
  // A piece that may be moved and has no place yet.
  struct Piece {
    TailMove move;
    uint64_t block = 0;  // of a refcount block
    bool is_block = false;
  };

  void begin_at(uint64_t first);
  uint64_t tail_clusters() const { return end_ - first_; }
  bool is_in_tail(uint64_t cluster) const { return cluster >= first_ && cluster < end_; }
  uint64_t cluster_of(uint64_t byte) const { return byte >> geometry_.cluster_bits(); }

  Task<void> count_references(const TailScan& scan);
  Result<void> refer(uint64_t begin, uint64_t end, uint32_t count, uint8_t owner);
  Task<void> compare_refcounts();
  bool stays(uint64_t from, uint64_t length) const;
  void note_stays(const char* what, uint64_t from);

  void gather(const TailScan& scan);
  void place_tables(const std::vector<TailPointer>& pointers, size_t first, size_t count);
  void leave_where_it_is(const TailPointer& table);
  void leave_encryption_header(const TailPointer& header);
  Task<void> gather_blocks();
  bool counts_only_what_leaves(uint64_t block) const;
  void place_pieces();
  void place_streams(const std::vector<TailPointer>& pointers);
  // Whether the streams from `first_stream` on fit the holes; gives them their places.
  bool try_streams(const std::vector<TailPointer>& pointers, size_t first_stream);

  const HomeParts parts_;
  const Geometry geometry_;
  HostSpace& space_;
  uint64_t first_;
  const uint64_t end_;
  std::vector<Room> rooms_;        // of tables in one piece
  std::vector<ClusterRun> holes_;  // that are still free
  std::vector<uint64_t> references_;
  std::vector<uint8_t> owners_;  // what a cluster of the tail holds
  std::vector<bool> stays_;
  uint64_t overcounted_ = 0;
  std::vector<Piece> pieces_;
  std::vector<TailMove> streams_;
  TailPlan plan_;
};

}  // namespace ringdisk::qcow2
