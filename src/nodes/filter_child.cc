// SPDX-License-Identifier: Apache-2.0
// Options shared by filters.
#include "nodes/filter_child.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "block/node_words.h"

namespace ringdisk {

Task<std::unique_ptr<SharedStorage>> open_filter_child(const World& world, const Drivers& drivers,
                                                       std::string filter, Options options,
                                                       OpenMode mode) {
  Options child = options.take_group("file");
  if (std::optional<std::string> filename = options.take("filename")) {
    child.set("filename", *filename);
  }
  move_node_words(options, child);
  co_await options.check_all_taken(filter, world.diagnostics);
  co_await take_node_words(child, mode, world.diagnostics);
  const std::string name = child.take("driver").value_or("file");
  auto is_it = [&name](const StorageDriver& driver) { return driver.name == name; };
  auto found = std::find_if(drivers.storages.begin(), drivers.storages.end(), is_it);
  if (found == drivers.storages.end()) {
    co_return world.diagnostics.explain(Error::of(ErrorKind::kUnsupported, "open"),
                                        "there is no storage driver '" + name + "'");
  }
  std::unique_ptr<StorageNode> node = co_await found->open(world, child, mode);
  co_return std::make_unique<SharedStorage>(std::move(node));
}

Result<StorageOperations> take_operations(Options& options, Diagnostics& diagnostics) {
  std::optional<std::string> text = options.take("operations");
  if (!text) return StorageOperations::all();
  std::optional<StorageOperations> set = StorageOperations::parse(*text);
  if (set) return *set;
  return diagnostics.explain(
      Error::of(ErrorKind::kInvalid, "open"),
      "operations is 'all' or some of read, write, write-zeroes, discard, flush, find-extent, "
      "resize, allocate, joined by '+'");
}

Result<bool> take_is_after(Options& options, Diagnostics& diagnostics) {
  const std::string when = options.take("when").value_or("before");
  if (when == "before" || when == "after") return when == "after";
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"), "when is 'before' or 'after'");
}

}  // namespace ringdisk
