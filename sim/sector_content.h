// SPDX-License-Identifier: Apache-2.0
// SectorContent: the bytes of a simulated medium, kept by sectors of 512 bytes and only where
// something was written, so that disks of many terabytes cost nothing. Sectors are shared between
// copies: a copy for a crashed image is cheap.
//
// What was never written reads as zeros (a regular file), or, with `stale`, as a pattern that names
// its sector (a block device that somebody else has used before): a reader who shows it to a guest
// has shown a stranger's data. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include "base/bytes.h"

namespace ringdisk::sim {

inline constexpr uint64_t kSectorBytes = 512;
using Sector = std::array<std::byte, kSectorBytes>;

// What sector number `sector` of a used block device holds before we write it.
Sector stale_sector(uint64_t sector);
// Whether `bytes` holds a piece of a stale sector's text.
bool looks_stale(Bytes bytes);

class SectorContent {
 public:
  explicit SectorContent(bool stale) : stale_(stale) {}

  // Any offset and length.
  void read(uint64_t offset, MutableBytes target) const;
  void write(uint64_t offset, Bytes source);
  void zero(uint64_t offset, uint64_t length);
  // Everything from `size` on is as if it had never been written.
  void cut(uint64_t size);

  // One sector whole, for crashed images.
  void copy_sector_to(uint64_t sector, Sector& target) const;

  // How many of the sectors [first, end) from `first` on are all known to read as zeros, or all
  // not.
  struct Run {
    uint64_t sectors;
    bool zero;
  };
  Run run_at(uint64_t first, uint64_t end) const;
  // Sectors that hold bytes of their own.
  uint64_t written_sectors() const { return written_.size(); }

 private:
  using Written = std::map<uint64_t, std::shared_ptr<const Sector>>;

  void change_sector(uint64_t sector, uint64_t begin, Bytes source);
  void zero_sectors(uint64_t first, uint64_t end);
  void forget_zeroed(uint64_t first);
  bool is_zeroed(uint64_t sector) const;

  bool stale_;
  Written written_;
  std::map<uint64_t, uint64_t> zeroed_;  // stale_ only: first sector -> end, apart from each other
};

}  // namespace ringdisk::sim
