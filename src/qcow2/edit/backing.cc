// SPDX-License-Identifier: Apache-2.0
// One edit of the header.
#include "qcow2/edit/backing.h"

#include "base/diagnostics.h"
#include "qcow2/node.h"

namespace ringdisk::qcow2 {
namespace {

struct NewBacking {
  std::string name, format;
};

Task<void> change_on_home(HomeParts parts, const NewBacking& backing) {
  const Image& image = parts.image;
  if (backing.name.size() > limits::kQcow2BackingNameBytesMax) {
    co_await fail(image.world.diagnostics.explain(Error::of(ErrorKind::kLimit, "change backing"),
                                                  image.node_id(),
                                                  "the name of a backing file has at most 1023 "
                                                  "bytes"));
  }
  if (image.data_file_is_raw() && !backing.name.empty()) {
    co_await fail(image.world.diagnostics.explain(
        Error::of(ErrorKind::kUnsupported, "change backing"), image.node_id(),
        "its data file is the whole disk (data_file_raw), and leaves nothing to a backing image"));
  }
  const HeaderChange change = [&backing](Header& header) -> Result<void> {
    set_backing(header, backing.name, backing.format);
    return {};
  };
  TableEditor tables(parts);
  co_await tables.rewrite_header(change);
}

}  // namespace

Task<void> change_backing(FormatNode& node, std::string name, std::string format) {
  const NewBacking backing{std::move(name), std::move(format)};
  const ImageEdit on_home = [&backing](HomeParts parts) { return change_on_home(parts, backing); };
  co_await static_cast<Qcow2Node&>(node).edit(on_home);
}

}  // namespace ringdisk::qcow2
