// SPDX-License-Identifier: Apache-2.0
// Export: one disk under one name, as clients see it. The server owns its exports; sessions on all
// shards use them.
//
// A DeviceQueue belongs to one shard, so an export keeps one queue a shard, opened when the first
// session (or the first batch handed over) needs it there and shared by all sessions of that shard:
//
//   slots_ [ shard 0: queue ][ shard 1: - ][ shard 2: queue ]   slot i: on shard i alone
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "async/mutex.h"
#include "async/task.h"
#include "block/device_queue.h"
#include "nbd/status_contexts.h"

namespace ringdisk::nbd {

// What the user asks to be served.
struct ExportOptions {
  std::string name;  // what clients ask for; may be empty; at most limits::kNbdNameBytesMax bytes
  std::string description;  // shown by clients that list; may be empty
  std::shared_ptr<DeviceNode> device;
  bool read_only = false;             // refuse writes even where the device would take them
  std::vector<ExportBitmap> bitmaps;  // shown as metadata contexts; of the device, names differ
};

class Export {
 public:
  // `shard_count`: how many shards the world has.
  Export(ExportOptions options, size_t shard_count);
  Export(const Export&) = delete;
  Export& operator=(const Export&) = delete;

  // any thread, constant
  const std::string& name() const { return options_.name; }
  const std::string& description() const { return options_.description; }
  const std::vector<ExportBitmap>& bitmaps() const { return options_.bitmaps; }
  bool is_read_only() const { return options_.read_only || options_.device->is_read_only(); }
  uint64_t size() const { return options_.device->size().value(); }
  // The protocol's transmission flags ("Transmission flags"). DF is offered with structured replies
  // only.
  uint16_t transmission_flags(bool structured_replies) const;

  // The queue of the calling shard, opened if need be. Errors: the device's.
  Task<DeviceQueue*> open_queue();
  // Opens a queue on the calling shard and closes it again. Errors: the device's.
  Task<void> try_queue();
  // The queue of the calling shard, or null before open_queue.
  DeviceQueue* queue() const;
  // Lets go of the calling shard's queue; nothing may be under way on it.
  void close_queue();

 private:
  // Apart by a cache line, since every shard changes its own.
  struct alignas(64) Slot {
    std::unique_ptr<DeviceQueue> queue;
    Mutex opening;
  };

  const ExportOptions options_;
  std::vector<Slot> slots_;  // index: Shard::index(); the number is constant
};

}  // namespace ringdisk::nbd
