// SPDX-License-Identifier: Apache-2.0
// Choosing a snapshot, and handing an edit to the image's home shard.
#include "qcow2/edit/snapshots.h"

#include "base/diagnostics.h"
#include "qcow2/edit/edit.h"
#include "qcow2/edit/snapshot_editor.h"

namespace ringdisk::qcow2 {

namespace {

std::optional<size_t> find_described(const SnapshotTable& table, Options& described) {
  const std::optional<std::string> id = described.take("snapshot.id");
  const std::optional<std::string> name = described.take("snapshot.name");
  for (size_t i = 0; i < table.snapshots.size(); ++i) {
    const Snapshot& one = table.snapshots[i];
    if ((!id || *id == one.id) && (!name || *name == one.name)) return i;
  }
  return std::nullopt;
}

}  // namespace

Result<size_t> choose_snapshot(const SnapshotTable& table, const std::string& wanted,
                               Precedence first, Diagnostics& diagnostics, uint32_t node) {
  std::optional<size_t> index;
  if (wanted.starts_with("snapshot.id=") || wanted.starts_with("snapshot.name=")) {
    ASSIGN_OR_RETURN(Options described, Options::parse(wanted, diagnostics));
    index = find_described(table, described);
    RETURN_IF_ERROR(described.check_all_taken("a snapshot", diagnostics));
  } else {
    index = find_snapshot(table, wanted, first);
  }
  if (index) return *index;
  return diagnostics.explain(Error::of(ErrorKind::kNotFound, "find snapshot"), node,
                             "there is no snapshot '" + wanted + "'");
}

static Task<void> edit_on_home(HomeParts parts, const SnapshotEdit& edit) {
  const Image& image = parts.image;
  if (image.has_data_file()) {
    co_await fail(image.world.diagnostics.explain(
        Error::of(ErrorKind::kUnsupported, "edit snapshots"), image.node_id(),
        "an image with a data file has no snapshots; convert it to one without"));
  }
  SnapshotEditor editor(parts);
  co_await editor.run(edit);
}

Task<void> edit_snapshots(Graph& graph, std::unique_ptr<SharedStorage> storage, SnapshotEdit edit) {
  const ImageEdit on_home = [&edit](HomeParts parts) { return edit_on_home(parts, edit); };
  co_await edit_image(graph, std::move(storage), on_home);
}

}  // namespace ringdisk::qcow2
