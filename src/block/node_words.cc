// SPDX-License-Identifier: Apache-2.0
// The words of every node.
#include "block/node_words.h"

#include <array>
#include <optional>
#include <string>

#include "base/diagnostics.h"
#include "block/graph.h"

namespace ringdisk {
namespace {

constexpr const char* kName = "node-name";
constexpr const char* kReadOnly = "read-only";
constexpr const char* kAutoReadOnly = "auto-read-only";
constexpr const char* kForceShare = "force-share";
constexpr std::array<const char*, 5> kInherited = {kReadOnly, kAutoReadOnly, kForceShare,
                                                   "cache.direct", "cache.no-flush"};

}  // namespace

void move_node_words(Options& format, Options& storage) {
  format.take(kName);
  for (const char* key : kInherited) {
    const std::optional<std::string> value = format.take(key);
    if (value && !storage.has(key)) storage.set(key, *value);
  }
}

Result<void> take_node_words(Options& storage, OpenMode& mode, Diagnostics& diagnostics) {
  storage.take(kName);
  RETURN_IF_ERROR(storage.take_bool(kAutoReadOnly, false, diagnostics));
  ASSIGN_OR_RETURN(const bool read_only, storage.take_bool(kReadOnly, false, diagnostics));
  ASSIGN_OR_RETURN(const bool shares, storage.take_bool(kForceShare, false, diagnostics));
  mode.share = mode.share || shares;
  if (!read_only || mode.read_only) return {};
  return diagnostics.explain(Error::of(ErrorKind::kDenied, "open"),
                             "its description says read-only=on, and it is to be written to; leave "
                             "that out, or use it for reading only");
}

}  // namespace ringdisk
