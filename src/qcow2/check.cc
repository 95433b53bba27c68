// SPDX-License-Identifier: Apache-2.0
// Driving a check, and the references that do not come from guest tables.
#include "qcow2/check.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

#include "base/diagnostics.h"
#include "base/span_reader.h"
#include "qcow2/checker.h"
#include "qcow2/describe.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

constexpr size_t kMessagesMax = 10000;
constexpr uint32_t kBitmapsMax = 65535;
constexpr uint64_t kBitmapDirectoryBytesMax = 64 * limits::kMiB;
constexpr uint32_t kBitmapEntryHeadBytes = 24;
// Of one bitmap: a table of 64 MiB describes 512 GiB of bitmap at 64 KiB clusters.
constexpr uint32_t kBitmapTableEntriesMax = 8 << 20;
// All snapshots' L1 tables together: tables that overlap, which a hostile image may have by the
// thousand, would be followed for ever.
constexpr uint64_t kSnapshotL1EntriesMax = 64 << 20;

}  // namespace

Checker::Checker(StorageAccess& storage, Diagnostics& diagnostics,
                 std::function<void(CheckProgress)> on_progress)
    : storage_(storage), diagnostics_(diagnostics), on_progress_(std::move(on_progress)) {}

void Checker::add_message(const char* format, va_list arguments) {
  if (report_.messages.size() == kMessagesMax) {
    report_.messages_cut = true;
    return;
  }
  char text[256];
  vsnprintf(text, sizeof text, format, arguments);
  report_.messages.emplace_back(text);
}

void Checker::corruption(const char* format, ...) {
  ++report_.corruptions;
  va_list arguments;
  va_start(arguments, format);
  add_message(format, arguments);
  va_end(arguments);
}

void Checker::leak(const char* format, ...) {
  ++report_.leaks;
  va_list arguments;
  va_start(arguments, format);
  add_message(format, arguments);
  va_end(arguments);
}

void Checker::advance(uint64_t bytes) {
  progress_.done = std::min(progress_.done + bytes, progress_.total);
  if (on_progress_) on_progress_(progress_);
}

bool Checker::refer(HostOffset at, uint64_t length, const char* what) {
  if (length == 0) return true;
  if (at.value() >= kHostEnd || length > kHostEnd - at.value()) {
    corruption("ERROR: %s at offset %#llx is beyond what an image can hold", what,
               static_cast<unsigned long long>(at.value()));
    return false;
  }
  const uint64_t first = at.value() >> geometry_.cluster_bits();
  const uint64_t last = (at.value() + length - 1) >> geometry_.cluster_bits();
  if (last >= file_clusters_) {
    corruption("ERROR: %s at offset %#llx lies beyond the end of the file", what,
               static_cast<unsigned long long>(at.value()));
    return false;
  }
  for (uint64_t cluster = first; cluster <= last; ++cluster) references_.add(ClusterIndex(cluster));
  return true;
}

Task<std::vector<uint64_t>> Checker::read_table(HostOffset at, uint64_t entries) {
  std::vector<uint64_t> table(entries);
  constexpr uint64_t kPieceBytes = limits::kMiB;
  Buffer buffer = Shard::current().buffers().take(std::min(kPieceBytes, entries * kEntryBytes + 1));
  for (uint64_t done = 0; done < entries;) {
    const uint64_t count = std::min(entries - done, kPieceBytes / kEntryBytes);
    MutableBytes piece = buffer.first(count * kEntryBytes);
    co_await storage_.read(at + ByteCount(done * kEntryBytes), MutableBuffers(piece));
    for (uint64_t i = 0; i < count; ++i) table[done + i] = load_be64(&piece[i * kEntryBytes]);
    done += count;
  }
  co_return std::move(table);
}

Task<void> Checker::refer_metadata() {
  refer(HostOffset(0), 1, "header");
  refer(header_.refcount_table, uint64_t{header_.refcount_table_clusters} << header_.cluster_bits,
        "refcount table");
  for (size_t i = 0; i < refcount_table_.size(); ++i) {
    const uint64_t entry = refcount_table_[i];
    if (entry == 0) continue;
    if ((entry & 511) != 0 || !HostOffset(entry).is_aligned(geometry_.cluster_size())) {
      corruption("ERROR refcount block %zu is not cluster aligned; refcount table entry corrupted",
                 i);
      refcount_table_[i] = 0;
    } else if (!refer(HostOffset(entry), geometry_.cluster_size(), "refcount block")) {
      refcount_table_[i] = 0;
    } else if (references_.count(geometry_.host_cluster(HostOffset(entry))) > 1) {
      corruption("ERROR refcount block %zu refcount=%u", i,
                 references_.count(geometry_.host_cluster(HostOffset(entry))));
    }
  }
  if (const HeaderExtension* encryption =
          header_.find_extension(ExtensionType::kEncryptionHeader)) {
    SpanReader reader(encryption->content);
    const HostOffset at(reader.be64());
    const uint64_t length = reader.be64();
    if (reader.ok()) refer(at, length, "encryption header");
  }
  co_await refer_bitmaps();
}

Task<void> Checker::refer_bitmaps() {
  const HeaderExtension* extension = header_.find_extension(ExtensionType::kBitmaps);
  // Without the autoclear bit the extension is stale, and its clusters are leaks.
  if (!extension || (header_.autoclear_features & kAutoclearBitmaps) == 0) co_return;
  SpanReader reader(extension->content);
  const uint32_t count = reader.be32();
  reader.skip(4);
  const uint64_t length = reader.be64();
  const HostOffset at(reader.be64());
  if (!reader.ok() || count > kBitmapsMax || length > kBitmapDirectoryBytesMax) {
    corruption("ERROR: the bitmap extension is damaged");
    co_return;
  }
  if (refer(at, length, "bitmap directory")) co_await refer_bitmap_directory(at, length, count);
}

Task<void> Checker::refer_bitmap_directory(HostOffset at, uint64_t length, uint32_t count) {
  std::vector<std::byte> directory(length);
  for (uint64_t done = 0; done < length; done += limits::kRequestBytesMax) {
    const uint64_t piece = std::min(limits::kRequestBytesMax, length - done);
    MutableBytes target = MutableBytes(directory).subspan(done, piece);
    co_await storage_.read(at + ByteCount(done), MutableBuffers(target));
  }
  SpanReader reader(directory);
  for (uint32_t i = 0; i < count; ++i) {
    const size_t start = reader.position();
    const HostOffset table(reader.be64());
    const uint32_t entries = reader.be32();
    reader.skip(4 + 1 + 1);  // flags, type, granularity
    const uint32_t name_length = reader.be16();
    const uint32_t extra_length = reader.be32();
    const uint64_t whole =
        (uint64_t{kBitmapEntryHeadBytes} + name_length + extra_length + 7) & ~uint64_t{7};
    if (!reader.ok() || whole > directory.size() - start) {
      corruption("ERROR: bitmap directory entry %u is damaged", i);
      co_return;
    }
    reader.skip(start + whole - reader.position());
    co_await refer_bitmap_table(table, entries);
  }
}

Task<void> Checker::refer_bitmap_table(HostOffset at, uint32_t entries) {
  if (entries > kBitmapTableEntriesMax) {
    corruption("ERROR: a bitmap table of %u entries breaks the limits", entries);
    co_return;
  }
  if (!refer(at, uint64_t{entries} * kEntryBytes, "bitmap table")) co_return;
  std::vector<uint64_t> table = co_await read_table(at, entries);
  for (uint64_t entry : table) {
    const HostOffset cluster(entry & kOffsetMask);
    if (cluster == HostOffset(0)) continue;
    if (!cluster.is_aligned(geometry_.cluster_size())) {
      corruption("ERROR: bitmap cluster at offset %#llx is not cluster aligned",
                 static_cast<unsigned long long>(cluster.value()));
      continue;
    }
    refer(cluster, geometry_.cluster_size(), "bitmap");
  }
}

Task<void> Checker::run() {
  header_ = co_await read_header(storage_, diagnostics_);
  co_await check_features(header_, diagnostics_, storage_.node_id());
  co_await check_places(header_, storage_.size(), diagnostics_, storage_.node_id());
  geometry_ = header_.geometry();
  file_clusters_ = geometry_.clusters_of(storage_.size().value());
  report_.total_clusters = geometry_.guest_clusters(header_.size);
  SnapshotTable snapshots = co_await read_snapshots(storage_, header_, diagnostics_);
  progress_.total = uint64_t{header_.l1_size} + 1;
  for (const Snapshot& snapshot : snapshots.snapshots) progress_.total += snapshot.l1_size;
  if (progress_.total > kSnapshotL1EntriesMax) {
    Error error = Error::of(ErrorKind::kLimit, "check");
    co_await fail(diagnostics_.explain(error, storage_.node_id(),
                                       "the snapshots' L1 tables are larger than any real ones"));
  }

  co_await load_refcount_table();
  co_await refer_metadata();
  active_l1_ = co_await read_table(header_.l1_table, header_.l1_size);
  co_await check_l1(header_.l1_table, header_.l1_size, Active::kYes);
  refer(header_.snapshot_table, snapshots.length, "snapshot table");
  for (const Snapshot& snapshot : snapshots.snapshots) {
    co_await check_l1(snapshot.l1_table, snapshot.l1_size, Active::kNo);
  }
  co_await compare_refcounts();
  co_await check_copied_flags();
  report_.image_end_offset = geometry_.host_offset(references_.end()).value();
  advance(progress_.total);
}

Task<std::optional<CheckReport>> check_image(const World& world, SharedStorage& storage,
                                             std::function<void(CheckProgress)> on_progress) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  Checker checker(*access, world.diagnostics, std::move(on_progress));
  co_await checker.run();
  co_return std::optional<CheckReport>(checker.take_report());
}

}  // namespace ringdisk::qcow2
