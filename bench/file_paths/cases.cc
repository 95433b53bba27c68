// SPDX-License-Identifier: Apache-2.0
//
// The list of cases: a few families, each over sizes and depths.

#include "cases.h"

#include <utility>

namespace ringdisk::bench {

namespace {

using Names = std::vector<std::string>;

const Names kBuffered{"in place",   "nowait",     "ring plain", "ring defer",
                      "ring fixed", "ring async", "pool 4"};
const Names kDirect{"in place",   "ring plain", "ring coop", "ring defer",
                    "ring fixed", "ring async", "aio",       "pool 16"};
const Names kOther{"in place", "ring defer", "ring async", "pool 4"};
const Names kHalfPage{"in place", "read first", "ring defer", "ring async"};
const Names kDirectNew{"in place", "ring defer", "ring async", "aio", "pool 16"};
const Names kBlocking{"in place", "nowait", "ring split"};
const Names kBriefBuffered{"in place", "nowait", "ring defer", "ring async"};
const Names kBriefDirect{"in place", "ring defer", "ring async"};

constexpr uint32_t k4KiB = 4096;
constexpr uint32_t k64KiB = 65536;
constexpr uint32_t k1MiB = 1 << 20;

class CaseList {
 public:
  CaseList(Kind kind, bool brief) : kind_(kind), brief_(brief) {}

  // `pattern` at each size and each depth.
  void add(const Case& pattern, std::vector<uint32_t> sizes,
           const std::vector<uint32_t>& depths = {1, 64}) {
    const bool needs_holes = pattern.start != Start::kCached && pattern.start != Start::kCold;
    if (kind_ == Kind::kDevice && needs_holes) return;
    if (brief_) sizes.resize(1);
    for (const uint32_t size : sizes) {
      for (const uint32_t depth : depths) {
        Case one = pattern;
        one.size = size;
        one.depth = depth;
        if (brief_) one.ways = pattern.direct ? kBriefDirect : kBriefBuffered;
        cases_.push_back(std::move(one));
      }
    }
  }

  std::vector<Case> take() { return std::move(cases_); }

 private:
  const Kind kind_;
  const bool brief_;
  std::vector<Case> cases_;
};

void add_buffered(CaseList& list, Kind kind) {
  const std::vector<uint32_t> sizes{k4KiB, k64KiB, k1MiB};
  list.add({.name = "read hit", .ways = kBuffered}, sizes);
  if (kind != Kind::kMemory) {
    list.add({.name = "read miss", .start = Start::kCold, .ways = kBuffered}, sizes);
    list.add(
        {.name = "read miss seq", .start = Start::kCold, .sequential = true, .ways = kBuffered},
        {k64KiB});
  }
  list.add({.name = "write hit", .verb = Verb::kWrite, .ways = kBuffered}, sizes);
  if (kind != Kind::kMemory) {
    list.add({.name = "write miss", .verb = Verb::kWrite, .start = Start::kCold, .ways = kOther},
             {k4KiB});
    list.add({.name = "write miss, half a page",
              .verb = Verb::kWrite,
              .start = Start::kCold,
              .ways = kHalfPage},
             {k4KiB / 2});
    list.add({.name = "write hit, sync beside",
              .verb = Verb::kWrite,
              .sync_beside = true,
              .ways = kOther},
             {k4KiB}, {1});
  }
  list.add({.name = "write hole", .verb = Verb::kWrite, .start = Start::kHoles, .ways = kOther},
           {k4KiB, k64KiB, k1MiB});
  list.add({.name = "write extend",
            .verb = Verb::kWrite,
            .start = Start::kEmpty,
            .sequential = true,
            .ways = kOther},
           {k64KiB});
}

void add_direct(CaseList& list) {
  const std::vector<uint32_t> sizes{k4KiB, k64KiB, k1MiB};
  list.add({.name = "direct read", .start = Start::kCold, .direct = true, .ways = kDirect}, sizes);
  list.add({.name = "direct write",
            .verb = Verb::kWrite,
            .start = Start::kCold,
            .direct = true,
            .ways = kDirect},
           sizes);
  list.add({.name = "direct write hole",
            .verb = Verb::kWrite,
            .start = Start::kHoles,
            .direct = true,
            .ways = kDirectNew},
           {k4KiB, k64KiB});
  list.add({.name = "direct write unwritten",
            .verb = Verb::kWrite,
            .start = Start::kUnwritten,
            .direct = true,
            .ways = kDirectNew},
           {k4KiB, k64KiB});
  list.add({.name = "direct write extend",
            .verb = Verb::kWrite,
            .start = Start::kEmpty,
            .direct = true,
            .sequential = true,
            .ways = kDirectNew},
           {k64KiB});
}

void add_whole_file(CaseList& list) {
  list.add({.name = "fdatasync clean", .verb = Verb::kDataSync, .ways = kOther}, {k4KiB}, {1});
  list.add({.name = "fdatasync dirty", .verb = Verb::kDataSync, .dirty = true, .ways = kOther},
           {k4KiB});
  list.add({.name = "fallocate", .verb = Verb::kAllocate, .start = Start::kHoles, .ways = kOther},
           {k64KiB});
  list.add({.name = "punch hole", .verb = Verb::kPunch, .start = Start::kCold, .ways = kOther},
           {k64KiB});
  list.add({.name = "zero range", .verb = Verb::kZero, .start = Start::kCold, .ways = kOther},
           {k64KiB});
}

}  // namespace

std::vector<Case> make_cases(Kind kind, bool brief) {
  CaseList list(kind, brief);
  add_buffered(list, kind);
  if (kind != Kind::kMemory) add_direct(list);
  add_whole_file(list);
  if (brief) return list.take();
  list.add({.name = "write hole, guarded",
            .verb = Verb::kWrite,
            .start = Start::kHoles,
            .ways = {"in place", "guarded", "ring async"}},
           {k4KiB}, {64});
  // How long the loop stands still, and how far several shards get on one file.
  list.add({.name = "read hit", .ways = {"in place", "ring async"}},
           {16 << 10, 128 << 10, 256 << 10}, {1});
  list.add({.name = "read hit, loop blocked", .ways = kBlocking}, {k64KiB, k1MiB}, {64});
  const Names shared{"in place", "ring fixed", "ring async"};
  list.add({.name = "read hit, 2 shards", .shards = 2, .ways = shared}, {k4KiB, k1MiB}, {64});
  list.add({.name = "write hit, 2 shards", .verb = Verb::kWrite, .shards = 2, .ways = shared},
           {k4KiB, k1MiB}, {64});
  return list.take();
}

}  // namespace ringdisk::bench
