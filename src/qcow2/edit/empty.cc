// SPDX-License-Identifier: Apache-2.0
// The empty table takes the old one's place in the header, in one sector.
#include "qcow2/edit/empty.h"

#include "qcow2/node.h"

namespace ringdisk::qcow2 {
namespace {

Task<void> switch_to_empty_table(TableEditor& tables, const Header& header) {
  const Geometry geometry = header.geometry();
  const TableEditor::Table old = co_await tables.read_table(header.l1_table, header.l1_size);
  const TableEditor::Table empty(old.size());
  co_await tables.set_dirty(true);
  const ClusterRun place = co_await tables.allocate_for(empty.size() * kEntryBytes);
  const HostOffset at = geometry.host_offset(place.first);
  co_await tables.write_table(at, empty);
  co_await tables.flush();
  const std::vector<std::byte> fields = encode_disk_fields(header, header.size, empty.size(), at);
  co_await tables.commit_header(kDiskFieldsAt, fields);
  std::vector<ClusterRun> runs;
  runs.push_back(
      {geometry.host_cluster(header.l1_table), geometry.clusters_of(old.size() * kEntryBytes)});
  co_await tables.lower(old, runs);
  co_await tables.set_dirty(false);
}

}  // namespace

Task<void> empty_disk(HomeParts parts) {
  TableEditor tables(parts);
  Result<void> switched = co_await switch_to_empty_table(tables, parts.image.header).result();
  if (!switched.ok()) co_await tables.undo();
  co_await std::move(switched);
}

Task<void> empty_image(FormatNode& node) {
  const ImageEdit empty = [](HomeParts parts) { return empty_disk(parts); };
  co_await static_cast<Qcow2Node&>(node).edit(empty);
}

}  // namespace ringdisk::qcow2
