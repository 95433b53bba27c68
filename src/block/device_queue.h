// SPDX-License-Identifier: Apache-2.0
// DeviceNode and DeviceQueue: a virtual disk as jobs and exports see it, whatever format and
// storages it is made of. DeviceQueue is the one checked funnel: range, permission, limits on the
// way in, the result on the way out; statistics and the sticky state live here. What it admits goes
// to block/access.
//
// The contract (ARCHITECTURE.md): all or error; overlapping requests in flight have no order;
// buffers are borrowed until the task is done; a write that completed before a flush was submitted
// survives power loss once that flush has succeeded, whichever queue either came from; a failed
// flush or metadata write is sticky: later flushes and writes fail.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/io_buffers.h"
#include "base/units.h"
#include "block/device_policy.h"
#include "block/format.h"

namespace ringdisk {

class DeviceNode;
class FormatAdmin;
class Shard;

// What one stretch of a disk is, for map, block status and convert.
struct BlockStatus {
  ByteCount length;      // at least 1
  bool present = false;  // in this image or in one below it (qemu-img map: "present")
  bool zero = false;     // reads as zeros, known without reading
  bool data = false;     // has a place for content; with `zero`, one that holds none yet
  bool compressed = false;
  uint32_t depth = 0;              // 0: this image, 1: its backing image, …
  std::optional<HostOffset> host;  // where it lies in the storage `file`, if it lies there as it is
  const StorageNode* storage = nullptr;  // set with `host`
};

struct DeviceCounters {
  uint64_t reads = 0, writes = 0, zeroes = 0, discards = 0, flushes = 0, failures = 0;
  uint64_t bytes_read = 0, bytes_written = 0;
  uint64_t compressed_writes = 0;  // of the writes, those that asked for compression
};

class DeviceQueue {
 public:
  virtual ~DeviceQueue() = default;

  virtual DeviceNode& node() = 0;
  virtual const DeviceCounters& counters() const = 0;

  // Ranges lie within the disk and are at most kRequestBytesMax long (zeroes and discards: any
  // length); any alignment. An empty request succeeds. Errors: kInvalid (range), kDenied
  // (read-only), kNoSpace, kIo, kCorrupt.
  virtual Task<void> read(GuestOffset offset, MutableBuffers target) = 0;
  virtual Task<void> write(GuestOffset offset, ConstBuffers source, WriteOptions options) = 0;
  // One whole cluster (format().limits().cluster_size; the disk's last one may be cut), at its
  // place, stored compressed where that makes it smaller and like any other where not. Also
  // kInvalid: less or more than that, or no such level; kUnsupported: the format has no compressed
  // clusters.
  virtual Task<void> write_compressed(GuestOffset offset, Bytes cluster,
                                      CompressOptions options) = 0;
  virtual Task<void> write_zeroes(GuestRange range, ZeroOptions options) = 0;
  // A hint; what it leaves reads as before or as zeros (or as the backing image, as the format has
  // it).
  virtual Task<void> discard(GuestRange range) = 0;
  virtual Task<void> flush() = 0;
  // The first stretch of `range`. `depth_max` 0 looks at this image alone: what lies below is
  // `!present`.
  virtual Task<BlockStatus> block_status(GuestRange range, uint32_t depth_max) = 0;
};

// A disk in a graph. Owned by the graph's user through shared_ptr (a backing image may have several
// users); closed with close_device when its last user lets go.
class DeviceNode {
 public:
  DeviceNode(std::string name, uint32_t id, std::unique_ptr<FormatNode> format,
             std::shared_ptr<DeviceNode> backing, DevicePolicy policy = DevicePolicy());
  ~DeviceNode();

  // any thread, constant after open
  const std::string& name() const { return name_; }
  uint32_t id() const { return id_; }
  FormatNode& format() { return *format_; }
  const FormatNode& format() const { return *format_; }
  const std::shared_ptr<DeviceNode>& backing() const { return backing_; }
  const DevicePolicy& policy() const { return policy_; }
  ByteCount size() const { return format_->size(); }
  bool is_read_only() const { return format_->limits().read_only; }

  // A queue for the calling shard, which is `shard`, with queues for the whole backing chain.
  Task<std::unique_ptr<DeviceQueue>> open_queue(Shard& shard);
  // After all its queues are gone: flushes nothing, closes the format, its storages, and the
  // backing chain where this is its last user. Idempotent.
  Task<void> close();

  // Sticky failure: from the first failed flush or metadata write on. Any thread.
  bool is_broken() const { return broken_errno_.load(std::memory_order_acquire) != 0; }
  int broken_errno() const { return broken_errno_.load(std::memory_order_acquire); }
  void mark_broken(const Error& cause);

 private:
  const std::string name_;
  const uint32_t id_;
  const DevicePolicy policy_;
  std::unique_ptr<FormatNode> format_;
  std::shared_ptr<DeviceNode> backing_;
  std::atomic<int> broken_errno_{0};
  bool closed_ = false;  // the closing shard only
};

}  // namespace ringdisk
