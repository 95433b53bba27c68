// SPDX-License-Identifier: Apache-2.0
// The driver's face of a storage: what moves bytes (file, mem, null, later nbd, http, rbd) and the
// filters that wrap one (delay, fault, later luks). Minimal and aligned: block/storage_access.h is
// the comfortable face that everyone calls; it checks, pads and counts, so a driver may rely on the
// conditions below.
//
// A StorageNode is shared; its const methods may be called on any thread. A StorageQueue, opened
// from it, belongs to one shard and has no locks. A queue is destroyed on its shard before its node
// is closed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "async/task.h"
#include "base/io_buffers.h"
#include "base/units.h"

namespace ringdisk {

class Shard;

// What a storage can do and how it wants to be asked. Constant after open.
struct StorageLimits {
  uint32_t block_size =
      1;  // offsets and lengths are multiples of it; a power of two, at most kBlockSizeMax
  uint32_t memory_alignment = 1;  // addresses and sizes of memory pieces, likewise
  bool read_only = false;
  bool grows = false;  // a write or resize beyond the end makes it larger
  bool grown_reads_zero =
      false;  // what a resize, or a write further out, adds reads as zeros (regular files)
  bool fast_zero = false;  // write_zeroes costs about as much as a metadata change
  bool unmaps = false;     // discard gives space back
  // What reads beyond size() get; none: zeros. For what is deciphered, where there are none.
  std::optional<Error> error_beyond_end;
};

struct WriteOptions {
  bool fua = false;  // durable when it completes
};

struct ZeroOptions {
  bool may_unmap = true;  // the storage may become a hole there
  // Fail with kUnsupported, and change nothing, where it would be no faster than writing zeros out.
  // Edges of less than a block or cluster around a fast middle are written.
  bool fast_only = false;
  bool fua = false;
};

// The first stretch of a range in which one thing holds.
struct StorageExtent {
  ByteCount length;
  bool zero = false;  // reads as zeros without looking (a hole)
};

class StorageQueue {
 public:
  virtual ~StorageQueue() = default;

  // Conditions for all: ranges and memory aligned as limits() says, not empty, at most
  // kRequestBytesMax to transfer; reads begin within size() and end within it rounded up to a block
  // (what lies beyond the end reads as zeros); nothing but reads and flushes on a read-only node.
  // All bytes or an error, with errno, offset and node. Requests of one queue may overlap in time;
  // order among them is the caller's affair.
  virtual Task<void> read(HostOffset offset, MutableBuffers target) = 0;
  virtual Task<void> write(HostOffset offset, ConstBuffers source, WriteOptions options) = 0;
  virtual Task<void> write_zeroes(HostRange range, ZeroOptions options) = 0;
  // The content afterwards is undefined, but one of: as before, zeros. Never somebody else's.
  virtual Task<void> discard(HostRange range) = 0;
  // Every write that completed before this was called, on any queue of the node, is durable when it
  // completes.
  virtual Task<void> flush() = 0;
  // Never empty; at most `range`.
  virtual Task<StorageExtent> find_extent(HostRange range) = 0;
  // Makes the storage `size` bytes long. Only where limits().grows; also cuts.
  virtual Task<void> resize(ByteCount size) = 0;
  // Space for the range is there afterwards, reading as before or as zeros; without data being
  // written out. kUnsupported where that can't be had.
  virtual Task<void> allocate(HostRange range) = 0;
};

class StorageNode {
 public:
  StorageNode(std::string name, uint32_t id) : name_(std::move(name)), id_(id) {}
  virtual ~StorageNode() = default;
  StorageNode(const StorageNode&) = delete;
  StorageNode& operator=(const StorageNode&) = delete;

  // As the user named it. Any thread.
  const std::string& name() const { return name_; }
  // The id for Error::node. Any thread.
  uint32_t id() const { return id_; }

  // "file", "mem", … as in driver=…. Any thread.
  virtual const char* driver() const = 0;
  virtual const StorageLimits& limits() const = 0;
  // The current length; grows with writes where limits().grows. Any thread (atomic).
  virtual ByteCount size() const = 0;
  // Host bytes that are really taken, where the storage knows (`disk size` of info); else size().
  virtual Task<ByteCount> allocated_size() = 0;

  // A queue for the calling shard, which is `shard`.
  virtual Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) = 0;
  // After all queues are gone. Does not flush. Any shard, once.
  virtual Task<void> close() = 0;

 private:
  const std::string name_;
  const uint32_t id_;
};

}  // namespace ringdisk
