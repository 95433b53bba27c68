// SPDX-License-Identifier: Apache-2.0
// Sparse content: a map of sectors, and for used devices a map of what was zeroed.
#include "sim/sector_content.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "base/check.h"

namespace ringdisk::sim {
namespace {

constexpr std::string_view kStaleText = "a-stranger's-bytes;";

// Calls visit(sector, begin in sector, length, offset in the range) for each sector of a range of
// bytes.
template <class Visit>
void for_each_sector(uint64_t offset, uint64_t length, Visit visit) {
  for (uint64_t done = 0; done < length;) {
    uint64_t begin = (offset + done) % kSectorBytes;
    uint64_t here = std::min(kSectorBytes - begin, length - done);
    visit((offset + done) / kSectorBytes, begin, here, done);
    done += here;
  }
}

}  // namespace

Sector stale_sector(uint64_t sector) {
  std::string text(kStaleText);
  text += std::to_string(sector) + ";";
  Sector made;
  for (size_t i = 0; i < made.size(); ++i) made[i] = static_cast<std::byte>(text[i % text.size()]);
  return made;
}

bool looks_stale(Bytes bytes) { return as_text(bytes).find(kStaleText) != std::string_view::npos; }

void SectorContent::copy_sector_to(uint64_t sector, Sector& target) const {
  auto found = written_.find(sector);
  if (found != written_.end()) {
    target = *found->second;
  } else if (stale_ && !is_zeroed(sector)) {
    target = stale_sector(sector);
  } else {
    target.fill(std::byte{0});
  }
}

void SectorContent::read(uint64_t offset, MutableBytes target) const {
  auto read_one = [&](uint64_t sector, uint64_t begin, uint64_t length, uint64_t done) {
    Sector content;
    copy_sector_to(sector, content);
    copy_bytes(Bytes(content).subspan(begin, length), target.subspan(done, length));
  };
  for_each_sector(offset, target.size(), read_one);
}

void SectorContent::change_sector(uint64_t sector, uint64_t begin, Bytes source) {
  auto changed = std::make_shared<Sector>();
  if (source.size() != kSectorBytes) copy_sector_to(sector, *changed);
  copy_bytes(source, MutableBytes(*changed).subspan(begin, source.size()));
  written_[sector] = std::move(changed);
}

void SectorContent::write(uint64_t offset, Bytes source) {
  auto write_one = [&](uint64_t sector, uint64_t begin, uint64_t length, uint64_t done) {
    change_sector(sector, begin, source.subspan(done, length));
  };
  for_each_sector(offset, source.size(), write_one);
}

void SectorContent::zero(uint64_t offset, uint64_t length) {
  uint64_t end = offset + length;
  uint64_t first_whole = (offset + kSectorBytes - 1) / kSectorBytes;
  uint64_t end_whole = end / kSectorBytes;
  const Sector zeros{};
  if (first_whole > end_whole) {  // within one sector
    change_sector(end_whole, offset % kSectorBytes, Bytes(zeros).first(length));
    return;
  }
  if (offset % kSectorBytes != 0) {
    uint64_t head = first_whole * kSectorBytes - offset;
    change_sector(first_whole - 1, offset % kSectorBytes, Bytes(zeros).first(head));
  }
  if (end % kSectorBytes != 0) change_sector(end_whole, 0, Bytes(zeros).first(end % kSectorBytes));
  zero_sectors(first_whole, end_whole);
}

void SectorContent::zero_sectors(uint64_t first, uint64_t end) {
  if (first >= end) return;
  written_.erase(written_.lower_bound(first), written_.lower_bound(end));
  if (!stale_) return;
  auto next = zeroed_.upper_bound(first);
  if (next != zeroed_.begin() && std::prev(next)->second >= first) --next;
  while (next != zeroed_.end() && next->first <= end) {
    first = std::min(first, next->first);
    end = std::max(end, next->second);
    next = zeroed_.erase(next);
  }
  zeroed_[first] = end;
}

void SectorContent::forget_zeroed(uint64_t first) {
  auto next = zeroed_.lower_bound(first);
  if (next != zeroed_.begin() && std::prev(next)->second > first) std::prev(next)->second = first;
  zeroed_.erase(next, zeroed_.end());
}

void SectorContent::cut(uint64_t size) {
  uint64_t first = (size + kSectorBytes - 1) / kSectorBytes;
  written_.erase(written_.lower_bound(first), written_.end());
  forget_zeroed(first);
  if (size % kSectorBytes != 0 && written_.contains(first - 1)) {
    const Sector zeros{};
    uint64_t kept = size % kSectorBytes;
    change_sector(first - 1, kept, Bytes(zeros).subspan(kept));
  }
}

bool SectorContent::is_zeroed(uint64_t sector) const {
  auto next = zeroed_.upper_bound(sector);
  return next != zeroed_.begin() && std::prev(next)->second > sector;
}

SectorContent::Run SectorContent::run_at(uint64_t first, uint64_t end) const {
  auto next = written_.lower_bound(first);
  if (next != written_.end() && next->first == first) {
    uint64_t sector = first;
    for (; next != written_.end() && next->first == sector && sector < end; ++next) ++sector;
    return {sector - first, false};
  }
  if (next != written_.end()) end = std::min(end, next->first);
  if (!stale_) return {end - first, true};
  auto zeroed = zeroed_.upper_bound(first);
  if (zeroed != zeroed_.begin() && std::prev(zeroed)->second > first) {
    return {std::min(end, std::prev(zeroed)->second) - first, true};
  }
  if (zeroed != zeroed_.end()) end = std::min(end, zeroed->first);
  return {end - first, false};
}

}  // namespace ringdisk::sim
