// SPDX-License-Identifier: Apache-2.0
// One check; with a repair, two with it between them.
#include "qcow2/check/check.h"

#include "qcow2/check/checker.h"
#include "qcow2/check/repair.h"

namespace ringdisk::qcow2 {
namespace {

// Progress in parts of all that is to be done.
constexpr uint64_t kProgressTotal = 1000;
constexpr uint64_t kFirstPart = 700;  // the check and the repair, before the second look

std::function<void(CheckProgress)> part_of(const std::function<void(CheckProgress)>& whole,
                                           uint64_t from, uint64_t to) {
  if (!whole) return {};
  return [whole, from, to](CheckProgress part) {
    const uint64_t within = part.total == 0 ? 0 : part.done * (to - from) / part.total;
    whole({from + within, kProgressTotal});
  };
}

// What came of a check and, if there was something to be done, a repair.
struct FirstLook {
  CheckReport report;
  Findings found;
  uint64_t flags_mended = 0;
  bool is_repaired = false;
};

// The lines of what was found, by what is being done about it, and of what was done besides.
std::vector<std::string> lines_of_repair(Repair& repair, CheckRepair mode) {
  FindingPrefixes prefixes;
  const char* kRepairing = "Repairing";
  if (!repair.keeps_leaks()) prefixes[FindingKind::kLeak] = kRepairing;
  if (mode == CheckRepair::kAll) {
    prefixes[FindingKind::kRefcountTooLow] = kRepairing;
    prefixes[FindingKind::kRefcountTables] = kRepairing;
  }
  if (repair.renews_snapshot_table()) prefixes[FindingKind::kSnapshotEntry] = kRepairing;
  std::vector<std::string> lines = repair.found().lines(prefixes);
  if (repair.rebuilds()) lines.push_back("Rebuilding refcount structure");
  FindingPrefixes done;
  done[FindingKind::kEntry] = kRepairing;
  done[FindingKind::kCopiedFlag] = kRepairing;
  for (std::string& line : repair.done().lines(done)) lines.push_back(std::move(line));
  return lines;
}

Task<FirstLook> look_and_repair(Checker& checker, CheckRepair mode) {
  FirstLook look;
  co_await checker.open();
  co_await checker.check();
  look.report = checker.report();
  if (mode == CheckRepair::kNone) co_return std::move(look);
  Repair repair(checker, mode);
  look.found = repair.found();
  if (repair.must_rebuild_but_may_not()) {
    look.report.messages.push_back("ERROR need to rebuild refcount structures, which -r all does");
    look.report.check_errors = 1;
    co_return std::move(look);
  }
  const bool is_marked = checker.image().header.is_dirty() || checker.image().header.is_corrupt();
  if (!repair.has_work()) {
    const bool is_sound = look.found.corruptions() == 0;
    if (is_sound && is_marked) {
      co_await Repair::mark_sound(checker.storage(), checker.image().header);
    }
    co_return std::move(look);
  }
  co_await repair.run();
  look.is_repaired = true;
  look.flags_mended = repair.done().count(FindingKind::kCopiedFlag);
  // These tell of what was done; those of the check are about refcounts that are no more.
  repair.found().forget(FindingKind::kCopiedFlag);
  repair.found().forget(FindingKind::kEntry);
  look.report.messages = lines_of_repair(repair, mode);
  co_return std::move(look);
}

uint64_t fewer(uint64_t before, uint64_t after) { return before > after ? before - after : 0; }

// A second look at what a repair has left, whose numbers count.
Task<CheckReport> look_again(Checker& checker, FirstLook first) {
  co_await checker.open();
  co_await checker.check();
  const Findings& left = checker.findings();
  if (left.corruptions() == 0) {
    co_await Repair::mark_sound(checker.storage(), checker.image().header);
  }
  CheckReport report = checker.report();
  auto apart_from_flags = [](const Findings& findings) {
    return findings.corruptions() - findings.count(FindingKind::kCopiedFlag);
  };
  report.leaks_fixed = fewer(first.found.leaks(), left.leaks());
  report.corruptions_fixed =
      fewer(apart_from_flags(first.found), apart_from_flags(left)) + first.flags_mended;
  report.second_messages = std::move(report.messages);
  report.messages = std::move(first.report.messages);
  report.messages_cut = report.messages_cut || first.report.messages_cut;
  co_return std::move(report);
}

}  // namespace

Task<std::optional<CheckReport>> check_image(const World& world, SharedStorage& storage,
                                             CheckOptions options, CancelToken cancel,
                                             std::function<void(CheckProgress)> on_progress) {
  const bool repairs = options.repair != CheckRepair::kNone;
  FirstLook first;
  {
    Checker checker(world, storage, options, cancel,
                    part_of(on_progress, 0, repairs ? kFirstPart : kProgressTotal));
    first = co_await look_and_repair(checker, options.repair);
  }
  if (!first.is_repaired) co_return std::optional<CheckReport>(std::move(first.report));
  Checker checker(world, storage, options, cancel,
                  part_of(on_progress, kFirstPart, kProgressTotal));
  CheckReport report = co_await look_again(checker, std::move(first));
  co_return std::optional<CheckReport>(std::move(report));
}

}  // namespace ringdisk::qcow2
