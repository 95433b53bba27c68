// SPDX-License-Identifier: Apache-2.0
// The sentences.
#include "qcow2/damage.h"

#include <array>
#include <cinttypes>
#include <cstdio>
#include <string>

#include "base/diagnostics.h"
#include "base/log.h"

namespace ringdisk::qcow2 {
namespace {

Error explain(const Image& image, const Error& error, std::string text) {
  return image.world.diagnostics.explain(error, image.node_id(), std::move(text));
}

Error damaged(const Image& image, const char* operation, uint64_t offset, std::string text) {
  return explain(image, Error::of(ErrorKind::kCorrupt, operation, offset), text + advice(image));
}

std::string l1_entry(const Image& image, uint64_t l1_index) {
  const Geometry& geometry = image.geometry;
  const GuestOffset guest = geometry.guest_offset(geometry.first_cluster_of(l1_index));
  return "L1 entry " + std::to_string(l1_index) + " (guest offset " +
         std::to_string(guest.value()) + ")";
}

std::string l2_entry(const Image& image, ClusterIndex guest) {
  const Geometry& geometry = image.geometry;
  return "L2 entry " + std::to_string(geometry.l2_index(guest)) + " of L1 entry " +
         std::to_string(geometry.l1_index(guest)) + " (guest offset " +
         std::to_string(geometry.guest_offset(guest).value()) + ")";
}

std::string cluster_at(const Image& image, ClusterIndex host) {
  return "the cluster at byte " + std::to_string(image.geometry.host_offset(host).value());
}

}  // namespace

std::string advice(const Image& image) {
  return "; run 'ringdisk check " + image.world.diagnostics.node_name(image.node_id()) + "'";
}

Error damaged_mapping(const Image& image, ClusterIndex guest) {
  const Geometry& geometry = image.geometry;
  const uint64_t l1_index = geometry.l1_index(guest);
  const L1Entry table = image.l1.load(l1_index);
  const bool has_l2_entry = table.is_valid(geometry) && table.has_table();
  const std::string what = has_l2_entry ? l2_entry(image, guest) : l1_entry(image, l1_index);
  return damaged(image, "map", geometry.guest_offset(guest).value(), what + " is damaged");
}

Error missing_table(const Image& image, uint64_t l1_index) {
  const uint64_t at = image.l1.load(l1_index).table().value();
  return damaged(image, "read L2 table", at,
                 "the L2 table of " + l1_entry(image, l1_index) + ", at byte " +
                     std::to_string(at) + ", lies beyond the end of the file");
}

Error unread_table(const Image& image, uint64_t l1_index, Error cause) {
  if (cause.note != 0) return cause;
  return explain(image, cause,
                 "the L2 table of " + l1_entry(image, l1_index) + ", at byte " +
                     std::to_string(image.l1.load(l1_index).table().value()) +
                     ", cannot be read: " + errno_text(cause.errno_value));
}

Error damaged_stream(const Image& image, ClusterIndex guest, HostOffset stream) {
  return explain(image, Error::of(ErrorKind::kCorrupt, "decompress", stream.value()),
                 "the compressed cluster of " + l2_entry(image, guest) + ", at byte " +
                     std::to_string(stream.value()) + ", cannot be decompressed");
}

Error low_refcount(const Image& image, ClusterIndex host) {
  return damaged(image, "free cluster", image.geometry.host_offset(host).value(),
                 "the refcount of " + cluster_at(image, host) + " is too low");
}

Error used_free_cluster(const Image& image, ClusterIndex host) {
  return damaged(image, "allocate clusters", image.geometry.host_offset(host).value(),
                 cluster_at(image, host) + " counts as free but is in use");
}

Error damaged_refcount_table(const Image& image, uint64_t entry) {
  return damaged(image, "read refcount table", image.header.refcount_table.value(),
                 "entry " + std::to_string(entry) + " of the refcount table is damaged");
}

Error damaged_table(const Image& image, HostOffset at, uint64_t entries) {
  return damaged(image, "read table", at.value(),
                 "a table of " + std::to_string(entries) + " entries at byte " +
                     std::to_string(at.value()) + " is longer or lies elsewhere than it may");
}

Error damaged_entry(const Image& image, const char* table, uint64_t raw) {
  std::array<char, 24> hex;
  std::snprintf(hex.data(), hex.size(), "0x%" PRIx64, raw);
  return damaged(image, "follow tables", Error::kNoOffset,
                 std::string("an ") + table + " entry, " + hex.data() + ", is damaged");
}

Result<void> check_writable(const Image& image, const char* operation) {
  Result<void> state = image.health.check(operation);
  if (state.ok()) return state;
  if (image.health.is_corrupt()) {
    return explain(image, state.error(),
                   "the image is damaged and read-only since that was found" + advice(image));
  }
  return explain(image, state.error(),
                 std::string("metadata could not be written earlier (") +
                     errno_text(state.error().errno_value) +
                     "); the image is read-only until it is opened again");
}

void end_writing(Image& image, const Error& cause) {
  if (!image.health.mark_broken(cause)) return;
  image.world.log.warning(image.world.diagnostics.describe(at_node(cause, image.node_id())) +
                          "; the image is read-only until it is opened again");
}

}  // namespace ringdisk::qcow2
