// SPDX-License-Identifier: Apache-2.0
// What the new name leads to is looked at without locks: it may be in use, or not be there yet.
#include "qcow2/edit/data_file_name.h"

#include "base/diagnostics.h"
#include "qcow2/describe.h"
#include "qcow2/edit/header_rewrite.h"
#include "qcow2/image_path.h"
#include "runtime/blocking_pool.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

// The name that the file at `path` records as its own data file; empty: it is no such image.
Task<std::string> data_file_of(Graph& graph, std::string path) {
  Options file;
  file.set("filename", std::move(path));
  OpenMode mode;
  mode.read_only = mode.share = true;
  Result<std::unique_ptr<SharedStorage>> opened =
      co_await graph.open_storage(std::move(file), mode).result();
  if (!opened.ok()) co_return std::string();
  SharedStorage& storage = *opened.value();
  Result<std::unique_ptr<StorageAccess>> access =
      co_await StorageAccess::open(storage, Shard::current()).result();
  std::string name;
  if (access.ok()) {
    Result<Header> header =
        co_await read_header(*access.value(), graph.world().diagnostics).result();
    if (header.ok() && header.value().has_data_file()) name = header.value().data_file_name();
    std::unique_ptr<StorageAccess> ended = std::move(access).value();
  }
  Result<void> closed = co_await storage.node->close().result();
  static_cast<void>(closed.ok());  // nothing was written
  co_return std::move(name);
}

Task<bool> is_same(const World& world, const std::string& one, const std::string& other) {
  auto look = [&](Blocking token) -> Result<bool> { return is_same_file(token, one, other); };
  co_return co_await run_blocking(world.blocking, look);
}

Task<void> refuse_tables_as_data(Graph& graph, const StorageNode& node, const std::string& name) {
  const std::string image = path_of(node);
  if (image.empty()) co_return;
  const std::string path = path_beside(image, name);
  Diagnostics& diagnostics = graph.world().diagnostics;
  const Error error = Error::of(ErrorKind::kInvalid, "amend");
  const bool is_itself = co_await is_same(graph.world(), image, path);
  if (is_itself) {
    co_await fail(diagnostics.explain(error, node.id(), "an image is not its own data file"));
  }
  const std::string named_there = co_await data_file_of(graph, path);
  if (named_there.empty()) co_return;
  const bool is_loop = co_await is_same(graph.world(), image, path_beside(path, named_there));
  if (is_loop) {
    co_await fail(diagnostics.explain(error, node.id(),
                                      "'" + name + "' is an image whose data file this one is"));
  }
}

}  // namespace

Task<void> change_data_file_name(Graph& graph, SharedStorage& storage, const Amendment& amendment) {
  Diagnostics& diagnostics = graph.world().diagnostics;
  const uint32_t node = storage.node->id();
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  const Header header = co_await read_header(*access, diagnostics);
  co_await check_features(header, diagnostics, node);
  co_await check_places(header, access->size(), diagnostics, node);
  co_await judge_amendment(amendment, header, diagnostics, node);
  if (header.is_corrupt()) {
    co_await fail(diagnostics.explain(Error::of(ErrorKind::kCorrupt, "amend"), node,
                                      "the image is marked as corrupt; repair it with "
                                      "'ringdisk check -r all'"));
  }
  co_await refuse_tables_as_data(graph, *storage.node, *amendment.data_file);
  const HeaderChange change = [&amendment](Header& changed) -> Result<void> {
    set_extension(changed, ExtensionType::kDataFileName, as_bytes(*amendment.data_file));
    if (!amendment.data_file_raw.value_or(true)) {
      changed.autoclear_features &= ~kAutoclearRawDataFile;
    }
    return {};
  };
  co_await rewrite_header(*access, diagnostics, change);
}

}  // namespace ringdisk::qcow2
