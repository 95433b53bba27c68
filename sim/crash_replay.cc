// SPDX-License-Identifier: Apache-2.0
// A walk over the open changes in the order in which they were applied. Survival is drawn for each
// change and sector by a hash, in one of several styles: a bug that shows only when exactly one
// write of many is missing, or only one is there, is not found by flipping a coin for each sector.
#include "sim/crash_replay.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/random.h"
#include "sim/seeds.h"

namespace ringdisk::sim {
namespace {

enum class Style : uint8_t {
  kNothing,
  kEverything,
  kSectorCoin,
  kChangeCoin,
  kMostSectors,
  kFewSectors,
  kAllButOne,
  kOnlyOne,
  kEarliest,
  kLatest,
};
constexpr uint64_t kStyles = 10;

// Zeroes of more sectors than this are decided in so many pieces.
constexpr uint64_t kZeroPieces = 2048;

class Draw {
 public:
  Draw(uint64_t seed, size_t changes) : seed_(seed) {
    Random random(seed);
    style_ =
        seed < 2 ? static_cast<Style>(seed) : static_cast<Style>(2 + random.below(kStyles - 2));
    chosen_ = changes == 0 ? 0 : random.below(changes);
    size_draw_ = random.next();
  }

  // Whether what change `at` (its place among the open ones) did to `sector` has survived.
  bool survives(size_t at, uint64_t number, uint64_t sector) const {
    switch (style_) {
      case Style::kNothing:
        return false;
      case Style::kEverything:
        return true;
      case Style::kSectorCoin:
        return percent(number, sector) < 50;
      case Style::kChangeCoin:
        return percent(number, 0) < 50;
      case Style::kMostSectors:
        return percent(number, sector) < 90;
      case Style::kFewSectors:
        return percent(number, sector) < 10;
      case Style::kAllButOne:
        return at != chosen_;
      case Style::kOnlyOne:
        return at == chosen_;
      case Style::kEarliest:
        return at <= chosen_;
      case Style::kLatest:
        return at >= chosen_;
    }
    UNREACHABLE("a style has ten values");
  }
  // How many of `count` open changes of the size have survived.
  size_t sizes_kept(size_t count) const {
    if (style_ == Style::kNothing || count == 0) return 0;
    if (style_ == Style::kEverything || size_draw_ % 3 == 0) return count;
    return static_cast<size_t>((size_draw_ >> 8) % (count + 1));
  }

 private:
  uint64_t percent(uint64_t number, uint64_t sector) const {
    return mix_seed(mix_seed(seed_, number), sector) % 100;
  }

  uint64_t seed_;
  Style style_;
  uint64_t chosen_;
  uint64_t size_draw_;
};

// One range of a change within one sector, or over whole sectors.
struct Piece {
  uint64_t offset;
  uint64_t length;
  uint64_t sector() const { return offset / kSectorBytes; }
  bool is_part_of_sector() const { return length < kSectorBytes; }
};

// The pieces that survive or not as one: sectors, or for large zeroes many sectors at once.
std::vector<Piece> pieces_of(const Change& change) {
  std::vector<Piece> pieces;
  if (change.kind == ChangeKind::kResize) return pieces;
  uint64_t whole = kSectorBytes;
  if (change.kind == ChangeKind::kZero && change.length / kSectorBytes > kZeroPieces) {
    whole = change.length / kSectorBytes / kZeroPieces * kSectorBytes;
  }
  for (uint64_t at = change.offset; at < change.end();) {
    uint64_t until = at + kSectorBytes - at % kSectorBytes;
    if (at % kSectorBytes == 0 && change.end() - at >= whole) until = at + whole;
    until = std::min(until, change.end());
    pieces.push_back({at, until - at});
    at = until;
  }
  return pieces;
}

void apply_piece(const Change& change, const Piece& piece, SectorContent& content) {
  if (change.kind == ChangeKind::kWrite) {
    content.write(piece.offset,
                  Bytes(change.bytes).subspan(piece.offset - change.offset, piece.length));
  } else {
    content.zero(piece.offset, piece.length);
  }
}

class Replay {
 public:
  Replay(const DiskState& settled, const std::vector<UndecidedChange>& tail, uint64_t seed)
      : tail_(tail), draw_(seed, tail.size()), state_(settled) {
    find_size_changes(settled.size);
    find_needed_sectors();
  }

  DiskState run() {
    for (size_t at = 0; at < tail_.size(); ++at) {
      const Change& change = *tail_[at].change;
      if (at < sizes_end_) change_size(change);
      for (const Piece& piece : pieces_of(change)) replay_piece(at, piece);
    }
    state_.content.cut(state_.size);
    return std::move(state_);
  }

 private:
  struct Cut {
    size_t at;
    uint64_t size;
  };

  // Decides where the changes of the size end, and which cuts are therefore not there. A durable
  // change brings the size changes before it along, where it would lie beyond the end without them.
  void find_size_changes(uint64_t size) {
    std::vector<size_t> open;
    std::vector<Cut> cuts;
    uint64_t least = size;  // of the sizes that are possible so far
    for (size_t at = 0; at < tail_.size(); ++at) {
      uint64_t after = tail_[at].change->size_after(size);
      if (after < size) cuts.push_back({at, after});
      if (after != size) open.push_back(at);
      bool needs_size = after != size || tail_[at].change->end() > least;
      if (tail_[at].durable && needs_size) {
        sizes_end_ = at + 1;
        open.clear();
        least = after;
      }
      least = std::min(least, after);
      size = after;
    }
    size_t kept = draw_.sizes_kept(open.size());
    if (kept != 0) sizes_end_ = open[kept - 1] + 1;
    for (const Cut& cut : cuts) {
      if (cut.at >= sizes_end_) missing_cuts_.push_back(cut);
    }
  }

  // A durable change of a part of a sector carries the whole sector: what it was laid upon is
  // there.
  void find_needed_sectors() {
    for (size_t at = 0; at < tail_.size(); ++at) {
      if (!tail_[at].durable) continue;
      for (const Piece& piece : pieces_of(*tail_[at].change)) {
        if (piece.is_part_of_sector()) needed_until_[piece.sector()] = at;
      }
    }
  }

  void change_size(const Change& change) {
    uint64_t after = change.size_after(state_.size);
    if (after < state_.size) state_.content.cut(after);
    state_.size = after;
  }

  bool survives(size_t at, const Piece& piece) const {
    if (tail_[at].durable) return true;
    for (const Cut& cut : missing_cuts_) {
      if (cut.at < at && piece.offset + piece.length > cut.size) return false;
    }
    auto needed = needed_until_.find(piece.sector());
    if (needed != needed_until_.end() && at < needed->second) return true;
    if (piece.is_part_of_sector() && missing_below_.contains(piece.sector())) return false;
    return draw_.survives(at, tail_[at].number, piece.sector());
  }

  void replay_piece(size_t at, const Piece& piece) {
    bool survived = survives(at, piece);
    if (survived) {
      apply_piece(*tail_[at].change, piece, state_.content);
      if (!piece.is_part_of_sector()) missing_below_.erase(piece.sector());
    } else {
      missing_below_[piece.sector()] = at;
      keep_needed_within(at, piece);
    }
  }

  // A large piece that is not there as a whole, but some of whose sectors must be.
  void keep_needed_within(size_t at, const Piece& piece) {
    uint64_t end = (piece.offset + piece.length) / kSectorBytes;
    for (auto it = needed_until_.upper_bound(piece.sector());
         it != needed_until_.end() && it->first < end; ++it) {
      if (at < it->second) state_.content.zero(it->first * kSectorBytes, kSectorBytes);
    }
  }

  const std::vector<UndecidedChange>& tail_;
  const Draw draw_;
  DiskState state_;
  size_t sizes_end_ = 0;  // changes of the size before this place are there, later ones are not
  std::vector<Cut> missing_cuts_;
  std::map<uint64_t, size_t> needed_until_;   // sector -> place of the durable part of it
  std::map<uint64_t, size_t> missing_below_;  // sector -> place of the newest change it misses
};

}  // namespace

void apply_whole(const Change& change, DiskState& state) {
  uint64_t after = change.size_after(state.size);
  if (after < state.size) state.content.cut(after);
  state.size = after;
  if (change.kind == ChangeKind::kWrite) state.content.write(change.offset, change.bytes);
  if (change.kind == ChangeKind::kZero) state.content.zero(change.offset, change.length);
}

DiskState replay_crash(const DiskState& settled, const std::vector<UndecidedChange>& tail,
                       uint64_t subset_seed) {
  return Replay(settled, tail, subset_seed).run();
}

}  // namespace ringdisk::sim
