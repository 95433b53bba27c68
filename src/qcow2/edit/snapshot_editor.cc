// SPDX-License-Identifier: Apache-2.0
// The three edits, each in its order. What they do to tables and refcounts: table_editor.h.
#include "qcow2/edit/snapshot_editor.h"

#include <algorithm>
#include <charconv>

#include "base/diagnostics.h"
#include "base/log.h"
#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/damage.h"
#include "qcow2/describe.h"
#include "qcow2/edit/snapshots.h"
#include "qcow2/edit/table_lane.h"

namespace ringdisk::qcow2 {
Task<void> SnapshotEditor::run(const SnapshotEdit& edit) {
  snapshots_ = co_await read_snapshots(tables_.storage(), image_.header, image_.world.diagnostics);
  Result<void> performed = co_await perform(edit).result();
  if (!performed.ok()) co_await tables_.undo();
  co_await std::move(performed);
}

Task<void> SnapshotEditor::perform(const SnapshotEdit& edit) {
  if (edit.action == SnapshotEdit::Action::kCreate) {
    co_await create(edit);
    co_return;
  }
  const bool applies = edit.action == SnapshotEdit::Action::kApply;
  const Precedence first = applies ? Precedence::kId : Precedence::kName;
  const size_t index = co_await choose_snapshot(snapshots_, edit.name, first,
                                                image_.world.diagnostics, image_.node_id());
  if (applies) {
    co_await apply(snapshots_.snapshots[index]);
  } else {
    co_await remove(index);
  }
}

std::string SnapshotEditor::unused_id() const {
  uint64_t highest = 0;
  for (const Snapshot& snapshot : snapshots_.snapshots) {
    uint64_t id = 0;
    const char* end = snapshot.id.data() + snapshot.id.size();
    const auto parsed = std::from_chars(snapshot.id.data(), end, id);
    if (parsed.ec == std::errc() && parsed.ptr == end) highest = std::max(highest, id);
  }
  return std::to_string(highest + 1);
}

Task<void> SnapshotEditor::create(const SnapshotEdit& edit) {
  if (snapshots_.snapshots.size() >= limits::kQcow2SnapshotsMax) {
    co_await fail(image_.world.diagnostics.explain(
        Error::of(ErrorKind::kLimit, "create snapshot"), image_.node_id(),
        "the image has as many snapshots as it can have; delete one"));
  }
  const Header& header = image_.header;
  Table active = co_await tables_.read_table(header.l1_table, header.l1_size);
  co_await tables_.set_dirty(true);
  const ClusterRun copy = co_await tables_.allocate_for(active.size() * kEntryBytes);
  co_await tables_.clear_active_copied_flags(active);
  co_await tables_.raise(active);

  Snapshot snapshot;
  snapshot.l1_table = geometry_.host_offset(copy.first);
  snapshot.l1_size = header.l1_size;
  snapshot.id = unused_id();
  snapshot.name = edit.name;
  snapshot.date_seconds = edit.date_seconds;
  snapshot.date_nanoseconds = edit.date_nanoseconds;
  snapshot.disk_size = header.size.value();
  co_await tables_.write_table(snapshot.l1_table, active);
  std::vector<Snapshot> snapshots = snapshots_.snapshots;
  snapshots.push_back(std::move(snapshot));
  const ClusterRun old_table = co_await switch_snapshot_table(snapshots);
  const std::vector<ClusterRun> runs = {old_table};
  const Table nothing;
  co_await tables_.lower(nothing, runs);
  co_await tables_.set_dirty(false);
}

Task<void> SnapshotEditor::apply(const Snapshot& snapshot) {
  const Header& header = image_.header;
  Table wanted = co_await tables_.read_table(snapshot.l1_table, snapshot.l1_size);
  const ByteCount size(snapshot.disk_size.value_or(header.size.value()));
  if (size != header.size) co_await bitmaps_.check_size(size);
  const uint64_t entries = std::max<uint64_t>(wanted.size(), geometry_.l1_entries_for(size));
  if (entries > limits::kQcow2L1BytesMax / kEntryBytes) {
    co_await fail(damaged_table(image_, snapshot.l1_table, entries));
  }
  const Table old = co_await tables_.read_table(header.l1_table, header.l1_size);
  co_await tables_.set_dirty(true);
  const ClusterRun place = co_await tables_.allocate_for(entries * kEntryBytes);
  co_await tables_.raise(wanted);
  co_await tables_.correct_copied_flags(wanted);
  wanted.resize(entries);
  co_await tables_.write_table(geometry_.host_offset(place.first), wanted);
  co_await tables_.flush();
  const HostOffset at = geometry_.host_offset(place.first);
  const std::vector<std::byte> fields = encode_disk_fields(header, size, entries, at);
  co_await tables_.commit_size(size, fields);
  Result<void> marked = co_await mark_changes(old, wanted, size).result();
  if (!marked.ok()) bitmaps_.abandon();
  co_await std::move(marked);
  const std::vector<ClusterRun> tables = {
      {geometry_.host_cluster(header.l1_table), geometry_.clusters_of(old.size() * kEntryBytes)}};
  co_await tables_.lower(old, tables);
  co_await tables_.set_dirty(false);
}

// Bitmaps record that the disk has become another one: every cluster whose entry is another, and
// what a disk that was smaller did not have.
Task<void> SnapshotEditor::mark_changes(const Table& before, const Table& after, ByteCount size) {
  if (image_.tracking.is_off()) co_return;
  const GuestOffset end(size.value());
  const GuestOffset old_end(std::min(size, image_.header.size).value());
  image_.tracking.mark(GuestRange::between(old_end, end));
  auto value = [](const Table& table, size_t i) {
    return i < table.size() ? table[i] : uint64_t{0};
  };
  auto entry = [&value](const Table& table, size_t i) { return value(table, i) & ~kCopied; };
  for (size_t i = 0; i < std::max(before.size(), after.size()); ++i) {
    if (entry(before, i) == entry(after, i)) continue;
    const Table one = co_await tables_.read_l2(L1Entry(entry(before, i)));
    const Table other = co_await tables_.read_l2(L1Entry(entry(after, i)));
    const uint64_t words = std::max(one.size(), other.size());
    for (uint64_t word = 0; word < words; ++word) {
      // Of an extended entry the second word has no flag.
      const bool has_flag = words == geometry_.l2_entries() || word % 2 == 0;
      const uint64_t differs = value(one, word) ^ value(other, word);
      if ((has_flag ? differs & ~kCopied : differs) == 0) continue;
      const uint64_t in_table = word * geometry_.l2_entries() / words;
      const ClusterIndex cluster = geometry_.first_cluster_of(i) + in_table;
      if (cluster.value() > kOffsetMax >> geometry_.cluster_bits()) break;
      image_.tracking.mark(
          GuestRange(geometry_.guest_offset(cluster), ByteCount(geometry_.cluster_size())));
    }
  }
}

// Where its table cannot be, nobody can say what it held: a check counts that as leaks once the
// entry is gone. With the entry the image would be damaged for ever.
Task<SnapshotEditor::Table> SnapshotEditor::held_by(const Snapshot& snapshot) {
  const Result<void> is_there = check_table_place(image_, snapshot.l1_table, snapshot.l1_size);
  if (is_there.ok()) {
    co_return co_await tables_.read_table(snapshot.l1_table, snapshot.l1_size).result();
  }
  image_.world.log.warning(image_.world.diagnostics.node_name(image_.node_id()) + ": snapshot '" +
                           snapshot.name +
                           "' has no L1 table, so what it held is not given back; "
                           "'ringdisk check -r leaks' does that");
  co_return Table();
}

Task<void> SnapshotEditor::remove(size_t index) {
  const Snapshot removed = snapshots_.snapshots[index];
  const Table led_to = co_await held_by(removed);
  std::vector<Snapshot> snapshots = snapshots_.snapshots;
  snapshots.erase(snapshots.begin() + static_cast<ptrdiff_t>(index));
  co_await tables_.set_dirty(true);
  const ClusterRun old_table = co_await switch_snapshot_table(snapshots);
  const std::vector<ClusterRun> tables = {old_table,
                                          {geometry_.host_cluster(removed.l1_table),
                                           geometry_.clusters_of(led_to.size() * kEntryBytes)}};
  co_await tables_.lower(led_to, tables);
  co_await tables_.correct_active_table();
  co_await tables_.storage().flush();
  co_await tables_.set_dirty(false);
}

// --- the snapshot table

Task<void> SnapshotEditor::complete_table() {
  snapshots_ = co_await read_snapshots(tables_.storage(), image_.header, image_.world.diagnostics);
  const bool is_complete = std::ranges::all_of(
      snapshots_.snapshots, [](const Snapshot& one) { return one.is_complete(); });
  if (is_complete) co_return;
  Result<void> rewritten = co_await rewrite_table().result();
  if (!rewritten.ok()) co_await tables_.undo();
  co_await std::move(rewritten);
}

Task<void> SnapshotEditor::rewrite_table() {
  co_await tables_.set_dirty(true);
  const ClusterRun old_table = co_await switch_snapshot_table(snapshots_.snapshots);
  const std::vector<ClusterRun> runs = {old_table};
  const Table nothing;
  co_await tables_.lower(nothing, runs);
  co_await tables_.set_dirty(false);
}

Task<ClusterRun> SnapshotEditor::switch_snapshot_table(const std::vector<Snapshot>& snapshots) {
  const std::vector<std::byte> bytes = encode_snapshots(snapshots, image_.header.size);
  if (bytes.size() > limits::kQcow2SnapshotTableBytesMax) {
    co_await fail(Error::of(ErrorKind::kLimit, "write snapshot table"));
  }
  const ClusterRun place = co_await tables_.allocate_for(bytes.size());
  const HostOffset at = geometry_.host_offset(place.first);
  if (!bytes.empty()) co_await tables_.storage().write(at, ConstBuffers(Bytes(bytes)));
  co_await tables_.flush();
  std::vector<std::byte> fields(12);
  store_be32(&fields[0], static_cast<uint32_t>(snapshots.size()));
  store_be64(&fields[4], at.value());
  co_await tables_.commit_header(kSnapshotFieldsAt, fields);
  co_return ClusterRun{geometry_.host_cluster(image_.header.snapshot_table),
                       geometry_.clusters_of(snapshots_.length)};
}

}  // namespace ringdisk::qcow2
