// SPDX-License-Identifier: Apache-2.0
// Versions of sectors: which are possible now, which after a crash.
#include "sim/model_disk.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "base/endian.h"
#include "sim/seeds.h"

namespace ringdisk::sim {
namespace {

constexpr uint64_t kStampMagic = 0x72696e676469736bu;  // "ringdisk"
constexpr size_t kPossibleMax = 256;

// A stamped sector: magic, sector, generation, seed, then words that follow from these.
Sector stamped_sector(uint64_t sector, uint64_t generation, uint64_t seed) {
  Sector made;
  std::array<uint64_t, 4> head = {kStampMagic, sector, generation, seed};
  uint64_t word = mix_seed(mix_seed(seed, generation), sector);
  for (size_t i = 0; i < kSectorBytes / 8; ++i) {
    store_le64(made.data() + i * 8, i < head.size() ? head[i] : word + i * 0x9e3779b97f4a7c15u);
  }
  return made;
}

// As std::equal, which compares std::byte one by one: a sweep spends its time here.
bool are_equal(Bytes one, const std::byte* other) {
  return std::memcmp(one.data(), other, one.size()) == 0;
}

void add_unique(std::vector<Sector>& all, const Sector& one) {
  auto is_one = [&one](const Sector& each) { return are_equal(each, one.data()); };
  if (std::none_of(all.begin(), all.end(), is_one)) all.push_back(one);
  CHECK_LE(all.size(), kPossibleMax);
}

bool matches(const Sector& content, uint64_t begin, Bytes actual) {
  return are_equal(actual, content.data() + begin);
}

// Calls visit(sector) for each sector that a range of bytes touches.
template <class Visit>
void for_each_touched(uint64_t offset, uint64_t length, Visit visit) {
  if (length == 0) return;
  uint64_t last = (offset + length - 1) / kSectorBytes;
  for (uint64_t sector = offset / kSectorBytes; sector <= last; ++sector) visit(sector);
}

std::string mismatch(uint64_t sector, const Sector& actual, const std::vector<Sector>& possible) {
  std::string text = "sector " + std::to_string(sector) + " holds " + describe_sector(actual);
  text += "; right would be";
  for (size_t i = 0; i < std::min<size_t>(possible.size(), 4); ++i) {
    text += (i == 0 ? " " : ", or ") + describe_sector(possible[i]);
  }
  if (possible.size() > 4) text += ", …";
  return text;
}

// Compares `actual` with the possible contents of each sector; `possible_of(sector)` gives them.
template <class PossibleOf>
std::optional<std::string> compare(uint64_t offset, Bytes actual, PossibleOf possible_of) {
  for (uint64_t done = 0; done < actual.size();) {
    uint64_t sector = (offset + done) / kSectorBytes;
    uint64_t begin = (offset + done) % kSectorBytes;
    uint64_t here = std::min(kSectorBytes - begin, actual.size() - done);
    Bytes part = actual.subspan(done, here);
    std::vector<Sector> possible = possible_of(sector);
    auto fits = [&](const Sector& content) { return matches(content, begin, part); };
    if (std::none_of(possible.begin(), possible.end(), fits)) {
      Sector shown = possible.front();
      copy_bytes(part, MutableBytes(shown).subspan(begin, here));
      return mismatch(sector, shown, possible);
    }
    done += here;
  }
  return std::nullopt;
}

}  // namespace

void fill_stamped(MutableBytes target, uint64_t offset, uint64_t generation, uint64_t seed) {
  for (uint64_t done = 0; done < target.size();) {
    uint64_t begin = (offset + done) % kSectorBytes;
    uint64_t here = std::min(kSectorBytes - begin, target.size() - done);
    Sector whole = stamped_sector((offset + done) / kSectorBytes, generation, seed);
    copy_bytes(Bytes(whole).subspan(begin, here), target.subspan(done, here));
    done += here;
  }
}

std::string describe_sector(const Sector& sector) {
  if (sector == Sector{}) return "zeros";
  if (looks_stale(sector)) return "a stranger's bytes";
  uint64_t place = load_le64(sector.data() + 8);
  uint64_t generation = load_le64(sector.data() + 16);
  uint64_t seed = load_le64(sector.data() + 24);
  std::string text = "generation " + std::to_string(generation) + " of sector " +
                     std::to_string(place) + " (disk " + std::to_string(seed) + ")";
  if (sector == stamped_sector(place, generation, seed)) return text;
  if (load_le64(sector.data()) == kStampMagic) return "in part " + text;
  return "a mixture or bytes of nobody";
}

uint64_t ModelDisk::begin_write(uint64_t offset, Bytes source, bool fua, uint64_t event) {
  std::vector<std::byte> bytes(source.begin(), source.end());
  return begin({ModelChange::kWrite, offset, source.size(), std::move(bytes), fua, event});
}
uint64_t ModelDisk::begin_zero(uint64_t offset, uint64_t length, bool fua, uint64_t event) {
  return begin({ModelChange::kZero, offset, length, {}, fua, event});
}
uint64_t ModelDisk::begin_discard(uint64_t offset, uint64_t length, uint64_t event) {
  return begin({ModelChange::kDiscard, offset, length, {}, false, event});
}

uint64_t ModelDisk::begin(Record record) {
  uint64_t change = ++last_change_;
  const Record& kept = changes_.emplace(change, std::move(record)).first->second;
  for_each_touched(kept.offset, kept.length,
                   [this, change](uint64_t sector) { add_version(change, sector); });
  return change;
}

void ModelDisk::end(uint64_t change, bool ok, uint64_t event) {
  Record& record = changes_.at(change);
  record.ended_event = event;
  record.ended_order = ++order_;
  record.ok = ok;
  for_each_touched(record.offset, record.length,
                   [this, change](uint64_t sector) { settle_version(change, sector); });
  record.bytes = {};
  if (!keeps_history_ && ok) changes_.erase(change);
}

uint64_t ModelDisk::begin_flush(uint64_t) {
  flushes_.push_back({++order_});
  return flushes_.size() - 1;
}
void ModelDisk::end_flush(uint64_t flush, bool ok, uint64_t event) {
  flushes_[flush].ended_event = event;
  flushes_[flush].ok = ok;
}

Sector ModelDisk::initial(uint64_t sector) const {
  Sector content{};
  if (initial_) initial_(sector, content);
  return content;
}

// The bytes of a write or of zeroes laid over `content`.
void ModelDisk::patch(const Record& record, uint64_t sector, Sector& content) const {
  uint64_t start = sector * kSectorBytes;
  uint64_t begin = std::max(record.offset, start);
  uint64_t end = std::min(record.offset + record.length, start + kSectorBytes);
  MutableBytes target = MutableBytes(content).subspan(begin - start, end - begin);
  if (record.kind == ModelChange::kWrite) {
    copy_bytes(Bytes(record.bytes).subspan(begin - record.offset, end - begin), target);
  } else {
    fill_zero(target);
  }
}

// The place of the newest version that is there for certain; size() if only the initial one is.
size_t ModelDisk::floor_now(const Versions& versions) const {
  for (size_t at = versions.size(); at-- > 0;) {
    auto change = changes_.find(versions[at].change);
    if (change == changes_.end() || (change->second.ended_order != 0 && change->second.ok))
      return at;
  }
  return versions.size();
}

std::vector<Sector> ModelDisk::possible_now(uint64_t sector) const {
  auto found = sectors_.find(sector);
  if (found == sectors_.end()) return {initial(sector)};
  const Versions& versions = found->second;
  size_t floor = floor_now(versions);
  if (floor + 1 == versions.size()) return versions[floor].possible;
  std::vector<Sector> possible;
  if (floor == versions.size()) {
    possible.push_back(initial(sector));
    floor = 0;
  }
  for (size_t at = floor; at < versions.size(); ++at) {
    for (const Sector& content : versions[at].possible) add_unique(possible, content);
  }
  return possible;
}

// Whether `record` leaves zeros in `sector`, of its bytes there, and nothing else.
bool ModelDisk::surely_zeroes(const Record& record, uint64_t sector) const {
  if (record.kind != ModelChange::kDiscard) return record.kind == ModelChange::kZero;
  if (discard_unit_ == 0) return false;
  const uint64_t start = sector * kSectorBytes / discard_unit_ * discard_unit_;
  const uint64_t end = std::min(start + discard_unit_, disk_bytes_);
  return record.offset <= start && record.offset + record.length >= end;
}

void ModelDisk::add_version(uint64_t change, uint64_t sector) {
  const Record& record = changes_.at(change);
  Version version{change, {}, {}};
  for (Sector content : possible_now(sector)) {
    if (record.kind == ModelChange::kDiscard && !surely_zeroes(record, sector)) {
      add_unique(version.possible, content);
    }
    patch(record, sector, content);
    add_unique(version.possible, content);
  }
  sectors_[sector].push_back(std::move(version));
}

// `change` has ended: what was begun beside it in this sector now has it in it.
void ModelDisk::settle_version(uint64_t change, uint64_t sector) {
  const Record& record = changes_.at(change);
  Versions& versions = sectors_[sector];
  auto own = std::find_if(versions.begin(), versions.end(),
                          [change](const Version& version) { return version.change == change; });
  CHECK(own != versions.end());
  if (!record.ok) return;
  if (record.kind == ModelChange::kWrite || surely_zeroes(record, sector)) {
    for (auto later = own + 1; later != versions.end(); ++later) {
      if (keeps_history_ && later->after_crash.empty()) later->after_crash = later->possible;
      std::vector<Sector> narrowed;
      for (Sector content : later->possible) {
        patch(record, sector, content);
        add_unique(narrowed, content);
      }
      later->possible = std::move(narrowed);
    }
  }
  if (keeps_history_) return;
  // Older versions are gone, but for those of changes that are still under way.
  auto is_over = [this, change](const Version& version) {
    auto found = changes_.find(version.change);
    return version.change < change && (found == changes_.end() || found->second.ended_order != 0);
  };
  versions.erase(std::remove_if(versions.begin(), own, is_over), own);
}

std::optional<std::string> ModelDisk::check(uint64_t offset, Bytes actual) {
  auto wrong = compare(offset, actual, [this](uint64_t sector) { return possible_now(sector); });
  if (wrong) return wrong;
  for (uint64_t done = 0; done < actual.size();) {
    uint64_t begin = (offset + done) % kSectorBytes;
    uint64_t here = std::min(kSectorBytes - begin, actual.size() - done);
    narrow((offset + done) / kSectorBytes, begin, actual.subspan(done, here));
    done += here;
  }
  return std::nullopt;
}

// What was seen once is what is there, unless something is still under way.
void ModelDisk::narrow(uint64_t sector, uint64_t begin, Bytes actual) {
  auto found = sectors_.find(sector);
  if (found == sectors_.end()) return;
  Versions& versions = found->second;
  for (const Version& version : versions) {
    auto change = changes_.find(version.change);
    if (change != changes_.end() && change->second.ended_order == 0) return;
  }
  Version& newest = versions.back();
  auto change = changes_.find(newest.change);
  bool may_be_missing = change != changes_.end() && !change->second.ok;
  if (newest.possible.size() == 1 && !may_be_missing) return;
  std::vector<Sector> seen;
  for (const Sector& content : possible_now(sector)) {
    if (matches(content, begin, actual)) seen.push_back(content);
  }
  if (keeps_history_ && newest.after_crash.empty()) newest.after_crash = newest.possible;
  newest.possible = std::move(seen);
  if (may_be_missing) newest.change = 0;  // it is known now: counts as there
}

bool ModelDisk::is_durable(uint64_t change, uint64_t event) const {
  auto found = changes_.find(change);
  if (found == changes_.end() || !found->second.ok) return false;
  const Record& record = found->second;
  if (record.fua && record.ended_event <= event) return true;
  return std::any_of(flushes_.begin(), flushes_.end(), [&](const Flush& flush) {
    return flush.ok && flush.ended_event <= event && record.ended_order < flush.begun_order;
  });
}

std::vector<Sector> ModelDisk::possible_crashed(uint64_t sector, uint64_t event) const {
  auto found = sectors_.find(sector);
  if (found == sectors_.end()) return {initial(sector)};
  const Versions& versions = found->second;
  std::vector<Sector> possible;
  size_t floor = versions.size();
  while (floor != 0 && !is_durable(versions[floor - 1].change, event)) --floor;
  if (floor == 0) {
    possible.push_back(initial(sector));
  } else {
    --floor;
  }
  for (size_t at = floor; at < versions.size(); ++at) {
    auto change = changes_.find(versions[at].change);
    if (change != changes_.end() && change->second.begun_event >= event) continue;
    for (const Sector& content : versions[at].possible) add_unique(possible, content);
    for (const Sector& content : versions[at].after_crash) add_unique(possible, content);
  }
  return possible;
}

std::optional<std::string> ModelDisk::check_crashed(uint64_t event, uint64_t offset,
                                                    Bytes actual) const {
  CHECK(keeps_history_);
  return compare(offset, actual,
                 [this, event](uint64_t sector) { return possible_crashed(sector, event); });
}

std::vector<uint64_t> ModelDisk::touched_sectors() const {
  std::vector<uint64_t> touched;
  for (const auto& [sector, versions] : sectors_) touched.push_back(sector);
  return touched;
}

}  // namespace ringdisk::sim
