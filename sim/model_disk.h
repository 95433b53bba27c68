// SPDX-License-Identifier: Apache-2.0
// ModelDisk: what a virtual disk may hold, kept beside the real one, sector by sector (512 bytes).
// It is told when a request begins and ends and then says of any bytes that were read whether they
// are right, and if not, whose they are.
//
// Every write has its own generation, and every sector of it its own content (fill), so a piece of
// data at the wrong place, of the wrong time or of another disk is recognised. A sector has more
// than one right content while a write to it is under way, after a write that failed, after a
// discard (as before, or zeros; whole units: zeros, where the format says so), and after a crash:
//
//   versions of one sector:   v0 ── v1 ── v2 ── v3     v1 is covered by a flush: the floor;
//                                   └── after a crash: v1, v2 or v3, as far as they had begun
//
// The caller keeps changes that are under way at the same time from overlapping in their bytes;
// they may share a sector. Events are positions in a CrashLog (0 where nothing crashes). One
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "sim/sector_content.h"

namespace ringdisk::sim {

// Content that names its place: byte `offset` on, as written by `generation` on the disk called
// `seed`.
void fill_stamped(MutableBytes target, uint64_t offset, uint64_t generation, uint64_t seed);
// Whose bytes these are, for failure messages; `sector` is 512 bytes, aligned.
std::string describe_sector(const Sector& sector);

enum class ModelChange : uint8_t { kWrite, kZero, kDiscard };

class ModelDisk {
 public:
  // What a sector holds before anything is written; zeros if there is none.
  using Initial = std::function<void(uint64_t sector, Sector& content)>;

  // `keeps_history`: check_crashed can be asked, at the price of keeping every version.
  ModelDisk(uint64_t seed, bool keeps_history, Initial initial = {})
      : seed_(seed), keeps_history_(keeps_history), initial_(std::move(initial)) {}

  // From now on discards zero the units of `unit` bytes that they hold whole, on a disk of
  // `disk_bytes` (whose last unit may be cut).
  void set_discard_unit(uint64_t unit, uint64_t disk_bytes) {
    discard_unit_ = unit;
    disk_bytes_ = disk_bytes;
  }

  // A new generation, whose bytes for `target` at `offset` are filled in.
  void fill(uint64_t offset, MutableBytes target) {
    fill_stamped(target, offset, ++generation_, seed_);
  }

  uint64_t begin_write(uint64_t offset, Bytes source, bool fua, uint64_t event);
  uint64_t begin_zero(uint64_t offset, uint64_t length, bool fua, uint64_t event);
  uint64_t begin_discard(uint64_t offset, uint64_t length, uint64_t event);
  void end(uint64_t change, bool ok, uint64_t event);
  uint64_t begin_flush(uint64_t event);
  void end_flush(uint64_t flush, bool ok, uint64_t event);

  // What is wrong with `actual`, read at `offset` while no change under way is newly begun or
  // ended; nullopt: it is right. A sector with several right contents has from then on the one that
  // was seen.
  std::optional<std::string> check(uint64_t offset, Bytes actual);
  // The same for what is there after a crash after `event`.
  std::optional<std::string> check_crashed(uint64_t event, uint64_t offset, Bytes actual) const;

  // Sectors that some change has touched, in order.
  std::vector<uint64_t> touched_sectors() const;

 private:
  struct Record {
    ModelChange kind;
    uint64_t offset;
    uint64_t length;
    std::vector<std::byte> bytes;  // kWrite, until the change has ended
    bool fua;
    uint64_t begun_event;
    uint64_t ended_event = 0;
    uint64_t ended_order = 0;  // 0: under way
    bool ok = false;
  };
  struct Flush {
    uint64_t begun_order;
    uint64_t ended_event = 0;
    bool ok = false;
  };
  struct Version {
    uint64_t change;
    std::vector<Sector> possible;  // as long as nothing crashes
    std::vector<Sector>
        after_crash;  // more than that, if not empty: neighbours in the sector may be missing
  };
  using Versions = std::vector<Version>;

  uint64_t begin(Record record);
  Sector initial(uint64_t sector) const;
  void patch(const Record& record, uint64_t sector, Sector& content) const;
  size_t floor_now(const Versions& versions) const;
  bool is_durable(uint64_t change, uint64_t event) const;
  std::vector<Sector> possible_now(uint64_t sector) const;
  std::vector<Sector> possible_crashed(uint64_t sector, uint64_t event) const;
  bool surely_zeroes(const Record& record, uint64_t sector) const;
  void add_version(uint64_t change, uint64_t sector);
  void settle_version(uint64_t change, uint64_t sector);
  void narrow(uint64_t sector, uint64_t begin, Bytes actual);

  const uint64_t seed_;
  const bool keeps_history_;
  const Initial initial_;
  uint64_t discard_unit_ = 0, disk_bytes_ = 0;  // 0: what a discard zeroes is not known
  uint64_t generation_ = 0;
  uint64_t order_ = 0;  // counts ends of changes and beginnings of flushes
  uint64_t last_change_ = 0;
  std::map<uint64_t, Record> changes_;  // without history: those that a version still names
  std::vector<Flush> flushes_;
  std::map<uint64_t, Versions> sectors_;
};

}  // namespace ringdisk::sim
