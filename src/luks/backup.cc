// SPDX-License-Identifier: Apache-2.0
// Copies in pieces; what makes a header recognisable goes last.
#include "luks/backup.h"

#include <algorithm>

#include "luks/invalidate.h"

namespace ringdisk::luks {
namespace {

constexpr uint64_t kPieceBytes = 1 << 20;
constexpr uint64_t kFrontBytes = 4096;

// The range of `source` that is there, at its place in `target`; the rest of it as zeros.
Task<void> copy_range(const World& world, HeaderWindow source, HeaderWindow target,
                      HostRange range) {
  std::vector<std::byte> piece(std::min(range.length.value(), kPieceBytes));
  while (!range.empty()) {
    const size_t bytes =
        static_cast<size_t>(std::min<uint64_t>(piece.size(), range.length.value()));
    const uint64_t at = range.offset.value(), there = source.size().value();
    const size_t readable =
        static_cast<size_t>(std::min<uint64_t>(bytes, there > at ? there - at : 0));
    const MutableBytes all = MutableBytes(piece).first(bytes);
    fill_zero(all.subspan(readable));
    if (readable > 0) co_await source.read(world, range.offset, all.first(readable));
    co_await target.write(world, range.offset, all);
    range = HostRange::between(range.offset + ByteCount(bytes), range.end());
  }
}

// What both say of the encrypted data is the same.
bool is_of_same_volume(const LuksHeader& one, const LuksHeader& other) {
  if (one.version() != other.version() || one.uuid() != other.uuid()) return false;
  if (one.luks1) {
    return one.luks1->payload_sector == other.luks1->payload_sector &&
           one.luks1->key_bytes == other.luks1->key_bytes;
  }
  const Luks2Metadata &ours = one.luks2->metadata, &theirs = other.luks2->metadata;
  return ours.segments.front().offset == theirs.segments.front().offset;
}

// A file that was cut short has no material of some key slots, and would overwrite theirs with
// zeros. What this program does not support is restored all the same.
Result<void> check_whole(const World& world, HeaderWindow backup, const LuksHeader& header) {
  const Result<VolumeFacts> facts = supported_facts(world, backup, header);
  const bool is_damaged = !facts.ok() && facts.error().kind == ErrorKind::kCorrupt;
  return is_damaged ? Result<void>(facts.error()) : Result<void>();
}

// What a header requires says in which state the data is, above all how far re-encryption has come;
// the data of today is in another one, for all we know.
Result<void> check_restorable(const LuksHeader& backup, const Refusal& refusal) {
  if (!backup.luks2 || backup.luks2->metadata.requirements.empty()) return {};
  return refusal(ErrorKind::kDenied,
                 "the backup requires '" + backup.luks2->metadata.requirements.front() +
                     "' of whoever opens it, as while re-encryption is under way, and may not "
                     "fit the data any more; '--force' restores it all the same");
}

Task<void> check_replaceable(const World& world, HeaderWindow target, const LuksHeader& backup) {
  Result<LuksHeader> there = co_await read_header(world, target).result();
  const Refusal refusal = target.refusal(world);
  if (!there.ok()) {
    if (there.error().kind == ErrorKind::kIo) co_await fail(there.error());
    co_await fail(refusal(ErrorKind::kDenied,
                          "there is no right LUKS header here; '--force' writes the backup's "
                          "over whatever there is"));
  }
  if (is_of_same_volume(there.value(), backup)) co_return;
  co_await fail(refusal(ErrorKind::kDenied,
                        "the backup is of another volume, " + backup.uuid() + ", and this one, " +
                            there.value().uuid() +
                            ", could not be read any more; '--force' restores it all the same"));
}

}  // namespace

ByteCount header_extent(const LuksHeader& header) {
  if (header.luks2) {
    return ByteCount(2 * header.luks2->binary.header_bytes +
                     header.luks2->metadata.slot_area_bytes);
  }
  uint64_t end = kFrontBytes;
  for (const Luks1Slot& slot : header.luks1->slots) {
    end = std::max(end, uint64_t{slot.material_sector} * kMaterialSectorBytes +
                            material_bytes(header.luks1->key_bytes));
  }
  return ByteCount(HostOffset(end).align_up(kFrontBytes).value());
}

Task<void> backup_header(const World& world, HeaderWindow source, HeaderWindow target) {
  LuksHeader header = co_await read_header(world, source);
  const HostRange all(HostOffset(0), header_extent(header));
  co_await copy_range(world, source, target, all);
  co_await target.flush();
}

Task<void> restore_header(const World& world, HeaderWindow backup, HeaderWindow target,
                          bool force) {
  LuksHeader header = co_await read_header(world, backup);
  co_await check_whole(world, backup, header);
  if (!force) {
    co_await check_restorable(header, backup.refusal(world));
    co_await check_replaceable(world, target, header);
  }
  const HostOffset end(header_extent(header).value());
  co_await target.admit(world, HostRange::between(HostOffset(0), end));
  const ByteCount front(kFrontBytes);
  const HostOffset second(header.luks2 ? header.luks2->binary.header_bytes : 0);
  co_await invalidate_header(world, target);
  if (header.luks2) {
    co_await copy_range(world, backup, target, HostRange::between(HostOffset(kFrontBytes), second));
  }
  const HostRange rest = HostRange::between(second + front, end);
  co_await copy_range(world, backup, target, rest);
  co_await target.flush();
  if (header.luks2) {
    co_await copy_range(world, backup, target, HostRange(second, front));
    co_await target.flush();
  }
  // Its first sector last: LUKS1 has key slots in the second one.
  const HostRange tail(HostOffset(kMaterialSectorBytes),
                       ByteCount(kFrontBytes - kMaterialSectorBytes));
  co_await copy_range(world, backup, target, tail);
  co_await target.flush();
  const HostRange first(HostOffset(0), ByteCount(kMaterialSectorBytes));
  co_await copy_range(world, backup, target, first);
  co_await target.flush();
}

}  // namespace ringdisk::luks
