// SPDX-License-Identifier: Apache-2.0
// The walk behind `map`: one block status after the other, held back until the next one does not
// continue it.
#include "jobs/map.h"

#include <algorithm>
#include <optional>

#include "base/limits.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

// Look-ups that end at once between two turns of the shard.
constexpr uint32_t kLookUpsPerTurn = 256;

}  // namespace

bool continues(const MapEntry& entry, const BlockStatus& next) {
  const BlockStatus& status = entry.status;
  if (status.zero != next.zero || status.data != next.data || status.present != next.present ||
      status.compressed != next.compressed || status.depth != next.depth ||
      status.host.has_value() != next.host.has_value() || status.storage != next.storage) {
    return false;
  }
  return !status.host || *status.host + status.length == *next.host;
}

Task<void> walk_map(DeviceQueue& queue, GuestRange range,
                    std::function<Result<void>(const MapEntry&)> visit) {
  std::optional<MapEntry> held;
  uint32_t look_ups = 0;
  for (GuestOffset at = range.offset; at < range.end();) {
    BlockStatus next =
        co_await queue.block_status(GuestRange::between(at, range.end()), limits::kBackingDepthMax);
    const ByteCount length = next.length;
    if (held && continues(*held, next)) {
      held->status.length += length;
    } else {
      if (held) co_await visit(*held);
      held = MapEntry{at, next};
    }
    at += length;
    if (++look_ups % kLookUpsPerTurn == 0) co_await NextTurn(Shard::current());
  }
  if (held) co_await visit(*held);
}

}  // namespace ringdisk
