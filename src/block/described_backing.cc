// SPDX-License-Identifier: Apache-2.0
// The part of a description that is about the backing image.
#include "block/described_backing.h"

#include "base/diagnostics.h"

namespace ringdisk {

Result<DescribedBacking> take_described_backing(Options& options, Diagnostics& diagnostics) {
  DescribedBacking described;
  described.options = options.take_group("backing");
  const std::optional<std::string> node = options.take("backing");
  if (!node) return described;
  const Error error = Error::of(ErrorKind::kInvalid, "open");
  if (!node->empty()) {
    return diagnostics.explain(error, "nodes have no names here, so backing=" + *node +
                                          " names nothing; write backing.file.filename=FILE");
  }
  if (!described.options.empty()) {
    return diagnostics.explain(error, "backing= is for none; 'backing." +
                                          described.options.values().begin()->first +
                                          "' has no meaning then");
  }
  described.is_none = true;
  return described;
}

ImageName backing_image_name(const Graph& graph, DescribedBacking described, std::string path,
                             std::string format) {
  ImageName name;
  if (described.options.empty()) {
    name.filename = std::move(path);
    name.format = std::move(format);
    return name;
  }
  const std::string driver = described.options.get("driver").value_or(format);
  const bool names_file = described.names_file();
  name.options = std::move(described.options);
  if (!driver.empty()) name.options.set("driver", driver);
  if (names_file) return name;
  name.options.set(graph.find_storage(driver) ? "filename" : "file.filename", std::move(path));
  return name;
}

}  // namespace ringdisk
