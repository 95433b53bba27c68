// SPDX-License-Identifier: Apache-2.0
// Where the tables lie that the header names: within the file, and apart from each other.
#include <array>

#include "base/diagnostics.h"
#include "qcow2/layout/header.h"

namespace ringdisk::qcow2 {
namespace {

struct Place {
  const char* name;
  HostRange range;
};

// Table bytes rounded up to clusters; the parser has bounded all numbers so that nothing overflows
// but the offsets.
Place place_of(const char* name, HostOffset at, uint64_t bytes, const Geometry& geometry) {
  uint64_t length = geometry.clusters_of(bytes) << geometry.cluster_bits();
  return {name, HostRange(at, ByteCount(length))};
}

}  // namespace

Result<void> check_has_refcounts(const Header& header, Diagnostics& diagnostics, uint32_t node) {
  if (header.refcount_table_clusters != 0) return {};
  return diagnostics.explain(Error::of(ErrorKind::kCorrupt, "open"), node,
                             "an image without a refcount table; run 'ringdisk check -r all " +
                                 diagnostics.node_name(node) + "'");
}

Result<void> check_places(const Header& header, ByteCount file_size, Diagnostics& diagnostics,
                          uint32_t node) {
  const Geometry geometry = header.geometry();
  auto refuse = [&](std::string why) {
    return diagnostics.explain(Error::of(ErrorKind::kCorrupt, "open"), node, std::move(why));
  };
  // A snapshot table's length is known only to who reads it; its first cluster stands for it.
  const uint64_t snapshot_bytes = header.snapshot_count != 0 ? 1 : 0;
  const HostRange encryption = header.encryption_header().value_or(HostRange());
  const std::array places = {
      place_of("header", HostOffset(0), 1, geometry),
      place_of("L1 table", header.l1_table, uint64_t{header.l1_size} * kEntryBytes, geometry),
      place_of("refcount table", header.refcount_table,
               uint64_t{header.refcount_table_clusters} << header.cluster_bits, geometry),
      place_of("snapshot table", header.snapshot_table, snapshot_bytes, geometry),
      place_of("encryption header", encryption.offset, encryption.length.value(), geometry),
  };
  const uint64_t end = geometry.clusters_of(file_size.value()) << geometry.cluster_bits();
  for (const Place& place : places) {
    if (place.range.empty()) continue;
    uint64_t at = place.range.offset.value();
    if (at > end || place.range.length.value() > end - at) {
      return refuse(std::string("the ") + place.name + " at byte " + std::to_string(at) +
                    " goes beyond the end of the file, which is cut short or damaged");
    }
  }
  for (size_t i = 0; i < places.size(); ++i) {
    for (size_t j = i + 1; j < places.size(); ++j) {
      if (places[i].range.empty() || places[j].range.empty()) continue;
      if (!places[i].range.overlaps(places[j].range)) continue;
      return refuse(std::string("the ") + places[j].name + " lies on the " + places[i].name);
    }
  }
  return {};
}

}  // namespace ringdisk::qcow2
