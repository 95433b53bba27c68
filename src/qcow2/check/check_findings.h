// SPDX-License-Identifier: Apache-2.0
// Findings: what one lane of a check has found, as numbers and as lines for people. Lines are
// bounded, numbers are not. Lanes finish in any order, so each line says where it belongs, and
// they are sorted when all are together. One shard at a time.
#pragma once

#include <array>
#include <cstdarg>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/units.h"

namespace ringdisk::qcow2 {

// What is wrong, by what can be done about it. All but kLeak are corruptions.
enum class FindingKind : uint8_t {
  kLeak,            // a refcount that is too high
  kRefcountTooLow,  //
  kCopiedFlag,      // contradicts the refcount
  kEntry,           // an entry of a guest table that says something impossible, and loses nothing
                    // when it is mended
  kUnclear,         // one that says two things at once, mended where both come to the same
  kRefcountTables,  // the refcount table or its blocks must be built anew
  kLostPointer,     // a pointer at a place where nothing can be: what it meant is still somewhere
  kSnapshotEntry,   // lacks fields of version 3, or has too much besides
  kOther,
};
inline constexpr size_t kFindingKinds = 9;

// Lines of an earlier stage stand before those of a later one.
enum class CheckStage : uint8_t {
  kSnapshotTable,
  kTables,
  kEntries,
  kRefcountTables,
  kRefcounts,
  kCopiedFlags,
};

// What is said in front of the lines of each kind: "ERROR", or "Repairing" where it is being done.
struct FindingPrefixes {
  std::array<const char*, kFindingKinds> text = {"Leaked", "ERROR", "ERROR", "ERROR", "ERROR",
                                                 "ERROR",  "ERROR", "ERROR", "ERROR"};
  const char*& operator[](FindingKind kind) { return text[static_cast<size_t>(kind)]; }
};

class Findings {
 public:
  // While muted nothing is noted: an image is gone over several times, but spoken of once.
  void set_muted(bool muted) { muted_ = muted; }
  bool is_muted() const { return muted_; }

  // `place` orders the lines of a stage.
  void add(FindingKind kind, CheckStage stage, uint64_t place, const char* format, ...)
      __attribute__((format(printf, 5, 6)));
  // The line noted last, if it was, ends with the refcount of `cluster`, which complete() puts
  // there: a lane knows only whether it is one.
  void end_with_refcount(ClusterIndex cluster);
  std::vector<ClusterIndex> refcounts_wanted() const;
  // With the refcounts of those, in the same order.
  void complete(const std::vector<uint64_t>& refcounts);
  // That guest data is said to lie in a cluster of metadata. In which does not fit into memory
  // where there are very many: then it may be any.
  void add_overlap(ClusterIndex cluster);
  bool may_overlap(ClusterIndex cluster) const {
    return overlaps_cut_ || overlaps_.contains(cluster.value());
  }
  void merge(Findings&& other);
  // Lines and number of one kind go.
  void forget(FindingKind kind);

  uint64_t count(FindingKind kind) const { return counts_[static_cast<size_t>(kind)]; }
  uint64_t leaks() const { return count(FindingKind::kLeak); }
  uint64_t corruptions() const;

  // In order; at most kMessagesMax.
  std::vector<std::string> lines(FindingPrefixes prefixes = FindingPrefixes());
  bool is_cut() const { return cut_; }

  // Notes what is met once only, in whatever window its cluster lies; lives for one `add`.
  class Unmuted {
   public:
    explicit Unmuted(Findings& findings) : findings_(findings), was_muted_(findings.muted_) {
      findings_.muted_ = false;
    }
    ~Unmuted() { findings_.muted_ = was_muted_; }
    Unmuted(const Unmuted&) = delete;
    Unmuted& operator=(const Unmuted&) = delete;

   private:
    Findings& findings_;
    const bool was_muted_;
  };

  // Clusters of the active disk, as `check` reports them.
  uint64_t allocated = 0, fragmented = 0, compressed = 0;
  // One behind the highest cluster of the file that has a reference or a refcount.
  uint64_t end_cluster = 0;

 private:
  static constexpr size_t kMessagesMax = 10000;
  struct Line {
    CheckStage stage;
    FindingKind kind;
    uint64_t place;
    std::string text;
    std::optional<ClusterIndex> ends_with_refcount_of;
  };

  std::array<uint64_t, kFindingKinds> counts_{};
  static constexpr size_t kOverlapsMax = 65536;
  std::vector<Line> lines_;
  std::set<uint64_t> overlaps_;  // clusters
  bool overlaps_cut_ = false;
  bool cut_ = false;
  bool muted_ = false;
  bool has_noted_ = false;  // the last `add` made a line
};

}  // namespace ringdisk::qcow2
