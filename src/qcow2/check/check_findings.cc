// SPDX-License-Identifier: Apache-2.0
// Noting, joining and printing of what a check has found.
#include "qcow2/check/check_findings.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <tuple>

namespace ringdisk::qcow2 {

void Findings::add(FindingKind kind, CheckStage stage, uint64_t place, const char* format, ...) {
  has_noted_ = false;
  if (muted_) return;
  ++counts_[static_cast<size_t>(kind)];
  if (lines_.size() == kMessagesMax) {
    cut_ = true;
    return;
  }
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  lines_.push_back({stage, kind, place, text, std::nullopt});
  has_noted_ = true;
}

void Findings::end_with_refcount(ClusterIndex cluster) {
  if (has_noted_) lines_.back().ends_with_refcount_of = cluster;
}

std::vector<ClusterIndex> Findings::refcounts_wanted() const {
  std::vector<ClusterIndex> clusters;
  for (const Line& line : lines_) {
    if (line.ends_with_refcount_of) clusters.push_back(*line.ends_with_refcount_of);
  }
  return clusters;
}

void Findings::complete(const std::vector<uint64_t>& refcounts) {
  size_t next = 0;
  for (Line& line : lines_) {
    if (!line.ends_with_refcount_of) continue;
    line.text += " refcount=" + std::to_string(refcounts[next++]);
    line.ends_with_refcount_of.reset();
  }
}

void Findings::add_overlap(ClusterIndex cluster) {
  if (overlaps_.size() < kOverlapsMax) {
    overlaps_.insert(cluster.value());
  } else {
    overlaps_cut_ = true;
  }
}

void Findings::merge(Findings&& other) {
  overlaps_cut_ = overlaps_cut_ || other.overlaps_cut_;
  for (uint64_t cluster : other.overlaps_) add_overlap(ClusterIndex(cluster));
  for (size_t i = 0; i < kFindingKinds; ++i) counts_[i] += other.counts_[i];
  allocated += other.allocated;
  fragmented += other.fragmented;
  compressed += other.compressed;
  end_cluster = std::max(end_cluster, other.end_cluster);
  cut_ = cut_ || other.cut_;
  lines_.insert(lines_.end(), std::make_move_iterator(other.lines_.begin()),
                std::make_move_iterator(other.lines_.end()));
  if (lines_.size() <= kMessagesMax) return;
  cut_ = true;
  lines_.resize(kMessagesMax);
}

void Findings::forget(FindingKind kind) {
  counts_[static_cast<size_t>(kind)] = 0;
  std::erase_if(lines_, [kind](const Line& line) { return line.kind == kind; });
}

uint64_t Findings::corruptions() const {
  uint64_t all = 0;
  for (uint64_t count : counts_) all += count;
  return all - leaks();
}

std::vector<std::string> Findings::lines(FindingPrefixes prefixes) {
  std::stable_sort(lines_.begin(), lines_.end(), [](const Line& one, const Line& other) {
    return std::tie(one.stage, one.place) < std::tie(other.stage, other.place);
  });
  std::vector<std::string> texts;
  texts.reserve(lines_.size());
  for (const Line& line : lines_) {
    texts.push_back(std::string(prefixes[line.kind]) + " " + line.text);
  }
  return texts;
}

}  // namespace ringdisk::qcow2
