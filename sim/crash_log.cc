// SPDX-License-Identifier: Apache-2.0
// Recording, and finding out at an event which changes are durable and which are not.
#include "sim/crash_log.h"

#include "base/check.h"
#include "sim/crash_replay.h"

namespace ringdisk::sim {

uint32_t CrashLog::add_disk(const DiskState& durable) {
  CHECK(events_.empty());
  initial_.push_back(durable);
  settled_.push_back({durable, 0});
  return static_cast<uint32_t>(initial_.size() - 1);
}

void CrashLog::replace_disk(uint32_t disk, const DiskState& durable) {
  CHECK(events_.empty());
  initial_[disk] = durable;
  settled_[disk] = {durable, 0};
}

uint64_t CrashLog::change_submitted(Change change) {
  changes_.push_back(std::move(change));
  events_.push_back({EventKind::kSubmitted, changes_.size() - 1});
  return changes_.size() - 1;
}
void CrashLog::change_applied(uint64_t change) { events_.push_back({EventKind::kApplied, change}); }
void CrashLog::change_completed(uint64_t change) {
  events_.push_back({EventKind::kCompleted, change});
}
void CrashLog::change_dropped(uint64_t change) { events_.push_back({EventKind::kDropped, change}); }
uint64_t CrashLog::flush_submitted(uint32_t disk) {
  flushes_.push_back(disk);
  events_.push_back({EventKind::kFlushSubmitted, flushes_.size() - 1});
  return flushes_.size() - 1;
}
void CrashLog::flush_completed(uint64_t flush) {
  events_.push_back({EventKind::kFlushCompleted, flush});
}
void CrashLog::flush_failed(uint64_t flush) { events_.push_back({EventKind::kFlushFailed, flush}); }

// What has become of the changes when the power fails.
struct CrashLog::Moment {
  struct Fate {
    bool in_flight = false;  // submitted, neither applied nor dropped
    bool durable = false;
  };
  std::vector<Fate> fates;
  std::vector<uint64_t> order;      // changes as they were applied, then those in flight
  std::vector<uint64_t> completed;  // not durable yet, with the event of completion beside
  std::vector<uint64_t> completed_at;

  explicit Moment(size_t changes) : fates(changes) {}

  void complete(uint64_t change, uint64_t event, bool fua) {
    fates[change].durable = fua;
    if (fua) return;
    completed.push_back(change);
    completed_at.push_back(event);
  }
  // Everything of `disk` that completed before the flush was submitted.
  void flush(const std::vector<Change>& changes, uint32_t disk, uint64_t submitted_at, bool ok) {
    size_t kept = 0;
    for (size_t i = 0; i < completed.size(); ++i) {
      bool covered = completed_at[i] < submitted_at && changes[completed[i]].disk == disk;
      if (!covered) {
        completed[kept] = completed[i];
        completed_at[kept++] = completed_at[i];
      } else if (ok) {
        fates[completed[i]].durable = true;
      }
    }
    completed.resize(kept);
    completed_at.resize(kept);
  }
};

CrashLog::Moment CrashLog::moment_at(uint64_t event) const {
  CHECK_LE(event, events_.size());
  Moment moment(changes_.size());
  std::vector<uint64_t> flush_submitted_at(flushes_.size());
  for (uint64_t at = 0; at < event; ++at) {
    uint64_t subject = events_[at].subject;
    switch (events_[at].kind) {
      case EventKind::kSubmitted:
        moment.fates[subject].in_flight = true;
        break;
      case EventKind::kApplied:
        moment.fates[subject].in_flight = false;
        moment.order.push_back(subject);
        break;
      case EventKind::kDropped:
        moment.fates[subject].in_flight = false;
        break;
      case EventKind::kCompleted:
        moment.complete(subject, at, changes_[subject].fua);
        break;
      case EventKind::kFlushSubmitted:
        flush_submitted_at[subject] = at;
        break;
      case EventKind::kFlushCompleted:
      case EventKind::kFlushFailed:
        moment.flush(changes_, flushes_[subject], flush_submitted_at[subject],
                     events_[at].kind == EventKind::kFlushCompleted);
        break;
    }
  }
  for (uint64_t change = 0; change < changes_.size(); ++change) {
    if (moment.fates[change].in_flight) moment.order.push_back(change);
  }
  return moment;
}

uint64_t CrashLog::undecided_at(uint64_t event) const {
  Moment moment = moment_at(event);
  uint64_t undecided = 0;
  for (uint64_t change : moment.order) undecided += !moment.fates[change].durable;
  return undecided;
}

const DiskState& CrashLog::settled(uint32_t disk, const std::vector<uint64_t>& changes,
                                   size_t count) const {
  Settled& cached = settled_[disk];
  if (cached.count > count) cached = {initial_[disk], 0};
  for (; cached.count < count; ++cached.count) {
    apply_whole(changes_[changes[cached.count]], cached.state);
  }
  return cached.state;
}

DiskState CrashLog::image_at(uint64_t event, uint32_t disk, uint64_t subset_seed) const {
  Moment moment = moment_at(event);
  std::vector<uint64_t> order;
  for (uint64_t change : moment.order) {
    if (changes_[change].disk == disk) order.push_back(change);
  }
  size_t settled_count = 0;
  while (settled_count < order.size() && moment.fates[order[settled_count]].durable) {
    ++settled_count;
  }
  std::vector<UndecidedChange> tail;
  for (size_t i = settled_count; i < order.size(); ++i) {
    tail.push_back({&changes_[order[i]], order[i], moment.fates[order[i]].durable});
  }
  return replay_crash(settled(disk, order, settled_count), tail, subset_seed);
}

}  // namespace ringdisk::sim
