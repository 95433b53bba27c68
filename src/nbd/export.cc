// SPDX-License-Identifier: Apache-2.0
// The queues of an export, one a shard, and what it promises clients.
#include "nbd/export.h"

#include "nbd/protocol.h"
#include "runtime/shard.h"

namespace ringdisk::nbd {

Export::Export(ExportOptions options, size_t shard_count)
    : options_(std::move(options)), slots_(shard_count) {
  CHECK(options_.device != nullptr);
}

uint16_t Export::transmission_flags(bool structured_replies) const {
  // Multi-conn holds for writable exports too: the queues of all connections share one device, and
  // a flush of any queue covers what completed on any other (the block contract).
  uint16_t flags =
      kFlagHasFlags | kFlagSendFlush | kFlagSendFua | kFlagSendCache | kFlagCanMultiConn;
  if (structured_replies) flags |= kFlagSendDf;
  if (is_read_only()) return flags | kFlagReadOnly;
  return flags | kFlagSendTrim | kFlagSendWriteZeroes | kFlagSendFastZero;
}

DeviceQueue* Export::queue() const { return slots_[Shard::current().index()].queue.get(); }

Task<DeviceQueue*> Export::open_queue() {
  Shard& shard = Shard::current();
  Slot& slot = slots_[shard.index()];
  // The second of two sessions that come at once waits for the first one's queue.
  MutexLock lock = co_await slot.opening.lock();
  if (!slot.queue) slot.queue = co_await options_.device->open_queue(shard);
  co_return slot.queue.get();
}

Task<void> Export::try_queue() {
  std::unique_ptr<DeviceQueue> queue = co_await options_.device->open_queue(Shard::current());
}

void Export::close_queue() { slots_[Shard::current().index()].queue.reset(); }

}  // namespace ringdisk::nbd
