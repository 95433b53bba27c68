// SPDX-License-Identifier: Apache-2.0
// FreeClusters: the known holes of the file, as runs of host clusters whose refcount is zero and
// that nobody may still be using. Pure. Home shard only.
//
//   runs, start -> length, apart from each other:  add(5, 2), add(9, 1), add(7, 2)  ->  { 5 -> 5 }
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "base/units.h"

namespace ringdisk::qcow2 {

struct ClusterRun {
  ClusterIndex first;
  uint64_t count = 0;
};

class FreeClusters {
 public:
  bool empty() const { return runs_.empty(); }
  // The clusters are in no run yet.
  void add(ClusterRun run) {
    uint64_t start = run.first.value(), length = run.count;
    auto next = runs_.lower_bound(start);
    if (next != runs_.end()) CHECK_LE(start + length, next->first);
    if (next != runs_.begin()) {
      auto before = std::prev(next);
      CHECK_LE(before->first + before->second, start);
      if (before->first + before->second == start) {
        start = before->first;
        length += before->second;
        runs_.erase(before);
      }
    }
    if (next != runs_.end() && start + length == next->first) {
      length += next->second;
      runs_.erase(next);
    }
    runs_.emplace(start, length);
  }

  // A run of exactly `count`, from a hole at least that large near where the last one was found;
  // nullopt where a short search finds none. It stays in the set.
  std::optional<ClusterRun> find(uint64_t count) {
    for (int tries = 0; tries < kTries && !runs_.empty(); ++tries) {
      auto hole = runs_.lower_bound(rotor_);
      if (hole == runs_.end()) hole = runs_.begin();
      if (hole->second >= count) {
        rotor_ = hole->first;
        return ClusterRun{ClusterIndex(hole->first), count};
      }
      rotor_ = hole->first + 1;
    }
    return std::nullopt;
  }
  // The next hole, however small, at most `count` of it.
  std::optional<ClusterRun> find_any(uint64_t count) {
    if (runs_.empty()) return std::nullopt;
    auto hole = runs_.lower_bound(rotor_);
    if (hole == runs_.end()) hole = runs_.begin();
    return ClusterRun{ClusterIndex(hole->first), std::min(count, hole->second)};
  }
  // Takes a part of one run out.
  void remove(ClusterRun run) {
    auto hole = std::prev(runs_.upper_bound(run.first.value()));
    const uint64_t start = hole->first, end = hole->first + hole->second;
    const uint64_t run_end = run.first.value() + run.count;
    CHECK_LE(start, run.first.value());
    CHECK_LE(run_end, end);
    runs_.erase(hole);
    if (start < run.first.value()) runs_.emplace(start, run.first.value() - start);
    if (run_end < end) runs_.emplace(run_end, end - run_end);
  }

 private:
  static constexpr int kTries = 32;
  std::map<uint64_t, uint64_t> runs_;
  uint64_t rotor_ = 0;
};

}  // namespace ringdisk::qcow2
