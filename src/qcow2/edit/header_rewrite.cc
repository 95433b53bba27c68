// SPDX-License-Identifier: Apache-2.0
// Sectors that the old header still uses are never written to before it has been switched away.
#include "qcow2/edit/header_rewrite.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "base/endian.h"
#include "block/storage_access.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kFillerHeadBytes = 8;

uint64_t whole_sectors(uint64_t bytes) {
  return (bytes + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
}

// What lies behind the first sector, and then the sector that switches to it.
void add_switch(std::vector<HeaderWrite>& plan, Bytes header, uint64_t tail_at) {
  if (header.size() > tail_at) {
    const Bytes tail = header.subspan(tail_at);
    plan.push_back({tail_at, std::vector<std::byte>(tail.begin(), tail.end())});
  }
  const Bytes first = header.first(kSectorBytes);
  plan.push_back({0, std::vector<std::byte>(first.begin(), first.end())});
}

// Never more than parse_header looks at.
Result<std::vector<std::byte>> encode_sectors(const Header& header, uint64_t extensions_at) {
  ASSIGN_OR_RETURN(std::vector<std::byte> bytes, encode_header(header, extensions_at));
  bytes.resize(whole_sectors(bytes.size()));
  if (bytes.size() > kHeaderBytesMax) return Error::of(ErrorKind::kLimit, "write header");
  return bytes;
}

uint64_t length_of_fields(Bytes header) {
  constexpr size_t kVersionAt = 4, kLengthAt = 100;
  return load_be32(&header[kVersionAt]) < 3 ? kVersion2HeaderBytes : load_be32(&header[kLengthAt]);
}

bool is_there(Bytes old_bytes, uint64_t old_end, Bytes wanted) {
  return old_end <= wanted.size() && wanted.size() <= old_bytes.size() &&
         std::ranges::equal(old_bytes.first(wanted.size()), wanted);
}

// Whether the new header's tail lies on nothing that the old one uses, but for what is the same.
bool is_switchable(Bytes old_bytes, uint64_t old_end, Bytes wanted) {
  for (uint64_t at = kSectorBytes; at < std::min<uint64_t>(wanted.size(), old_end);
       at += kSectorBytes) {
    const uint64_t length = std::min<uint64_t>(kSectorBytes, old_bytes.size() - at);
    const bool is_same =
        std::ranges::equal(old_bytes.subspan(at, length), wanted.subspan(at, length));
    if (!is_same) return false;
  }
  return true;
}

Result<std::vector<HeaderWrite>> plan_with(Bytes old_bytes, uint64_t old_end,
                                           const Header& header) {
  ASSIGN_OR_RETURN(const std::vector<std::byte> wanted, encode_sectors(header, 0));
  std::vector<HeaderWrite> plan;
  if (is_there(old_bytes, old_end, wanted)) return plan;
  uint64_t used_end = std::max<uint64_t>(whole_sectors(old_end), wanted.size());
  if (!is_switchable(old_bytes, old_end, wanted)) {
    const uint64_t detour_at = used_end;
    ASSIGN_OR_RETURN(const std::vector<std::byte> detour, encode_sectors(header, detour_at));
    if (length_of_fields(wanted) + kFillerHeadBytes > kSectorBytes) {
      return Error::of(ErrorKind::kLimit, "write header");
    }
    add_switch(plan, detour, detour_at);
    used_end = detour.size();
  }
  add_switch(plan, wanted, kSectorBytes);
  // Nothing else may stand in this cluster.
  if (used_end > wanted.size()) {
    plan.push_back({wanted.size(), std::vector<std::byte>(used_end - wanted.size())});
  }
  return plan;
}

}  // namespace

Result<std::vector<HeaderWrite>> plan_header_rewrite(Bytes old_bytes, uint64_t old_end,
                                                     const Header& wanted) {
  CHECK_LE(old_end, uint64_t{old_bytes.size()});
  Result<std::vector<HeaderWrite>> plan = plan_with(old_bytes, old_end, wanted);
  if (plan.ok() || !wanted.find_extension(ExtensionType::kFeatureNames)) return plan;
  Header without = wanted;
  remove_extension(without, ExtensionType::kFeatureNames);
  return plan_with(old_bytes, old_end, without);
}

Task<void> rewrite_header(StorageAccess& storage, Diagnostics& diagnostics,
                          const HeaderChange& change) {
  const uint32_t node = storage.node_id();
  std::vector<std::byte> bytes(std::min<uint64_t>(kHeaderBytesMax, storage.size().value()));
  co_await storage.read(HostOffset(0), MutableBuffers(MutableBytes(bytes)));
  Header header = co_await parse_header(bytes, diagnostics, node);
  const uint64_t old_end = header.end;
  co_await change(header);
  if (header.version < 3) remove_extension(header, ExtensionType::kFeatureNames);
  add_feature_names(header);
  Result<std::vector<HeaderWrite>> planned = plan_header_rewrite(bytes, old_end, header);
  if (!planned.ok()) {
    co_await fail(diagnostics.explain(planned.error(), node,
                                      "the header's cluster has no room for this change; convert "
                                      "the image to a larger cluster_size"));
  }
  const std::vector<HeaderWrite> plan = std::move(planned).value();
  for (const HeaderWrite& write : plan) {
    co_await storage.write(HostOffset(write.at), ConstBuffers(Bytes(write.bytes)));
    co_await storage.flush();
  }
}

}  // namespace ringdisk::qcow2
