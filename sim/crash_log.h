// SPDX-License-Identifier: Apache-2.0
// CrashLog: everything that was asked of one or several simulated disks, in order, so that one run
// of a workload can be crashed after any event, as often as one likes, without running it again. An
// image file and its data file share one log, because the power fails for both at the same moment.
//
// The fault model. A change (write, zeroes, discard, resize) has three events: submitted, applied
// (readers see it), completed. A crash keeps
//   - every change that completed before a flush was submitted which itself has completed, and
//     every completed FUA change;
//   - of all other changes that had been submitted, any subset, sector by sector (512 bytes, each
//     whole or not at all). A sector holds what it held after some number of its applied changes,
//     not fewer than the durable ones; a change in flight may be there in part;
//   - sizes: the durable one or any later one. Changes of the size happen in order (a journal):
//     where a cut has not survived, nothing written after it into the space it cut has either.
//     Beyond the size there is nothing.
// A change completed before a failed flush may be lost for ever: later flushes say nothing about
// it. Deterministic: the same event and subset seed give the same image. Cost: about one copy of
// the written sectors an image.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sim/sector_content.h"

namespace ringdisk::sim {

enum class ChangeKind : uint8_t { kWrite, kZero, kResize };

// One change of one disk. A write or zeroes beyond the end makes the disk larger.
struct Change {
  uint32_t disk = 0;
  ChangeKind kind = ChangeKind::kWrite;
  bool fua = false;
  uint64_t offset = 0;           // kResize: 0
  uint64_t length = 0;           // kResize: the new size
  std::vector<std::byte> bytes;  // kWrite

  uint64_t end() const { return offset + length; }
  // The size of the disk afterwards.
  uint64_t size_after(uint64_t size_before) const {
    return kind == ChangeKind::kResize ? length : std::max(size_before, end());
  }
};

// What a disk holds.
struct DiskState {
  SectorContent content;
  uint64_t size;
};

class CrashLog {
 public:
  // A disk joins with what it durably holds; gives its number.
  uint32_t add_disk(const DiskState& durable);
  // Its content is set up from outside; before the first event.
  void replace_disk(uint32_t disk, const DiskState& durable);

  // What happens, as SimDisk tells it.
  uint64_t change_submitted(Change change);
  void change_applied(uint64_t change);
  void change_completed(uint64_t change);
  void change_dropped(uint64_t change);  // it failed and will not be applied
  uint64_t flush_submitted(uint32_t disk);
  void flush_completed(uint64_t flush);
  void flush_failed(uint64_t flush);

  // A crash may come after any number of events from 0 to this.
  uint64_t events() const { return events_.size(); }
  // How many changes a crash there may keep or lose; 0: every subset seed gives the same image.
  uint64_t undecided_at(uint64_t event) const;
  // What disk `disk` durably holds if the power fails after `event` events. Subset seeds: 0 loses
  // all that may be lost, 1 keeps all, others draw.
  DiskState image_at(uint64_t event, uint32_t disk, uint64_t subset_seed) const;

 private:
  enum class EventKind : uint8_t {
    kSubmitted,
    kApplied,
    kCompleted,
    kDropped,
    kFlushSubmitted,
    kFlushCompleted,
    kFlushFailed,
  };
  struct Event {
    EventKind kind;
    uint64_t subject;  // index of a change or a flush
  };
  // Where the changes stand when the power fails.
  struct Moment;

  Moment moment_at(uint64_t event) const;
  const DiskState& settled(uint32_t disk, const std::vector<uint64_t>& changes, size_t count) const;

  std::vector<DiskState> initial_;
  std::vector<Change> changes_;
  std::vector<uint32_t> flushes_;  // the disk of each
  std::vector<Event> events_;

  // The state after the first `count` applied changes of a disk: crashes are usually looked at in
  // order, and most of what came before one is settled.
  struct Settled {
    DiskState state;
    size_t count;
  };
  mutable std::vector<Settled> settled_;
};

}  // namespace ringdisk::sim
