// SPDX-License-Identifier: Apache-2.0
// The driver's face of a format: it says WHERE guest bytes are and never moves them (raw, qcow2).
// block/access.cc is the only caller of the data methods: it splits a request by mappings, moves
// the bytes, fills what must be filled.
//
// A FormatNode is shared (its own synchronisation); a FormatQueue belongs to one shard and holds
// that shard's access to the storages below. Lookups of all shards run beside each other without
// locks; changes of the mapping go to the node's home shard by themselves.
//
// Reading            try_map ─ false ─> load_map, try_map again …; then move bytes, then let the
//                    Mapping (and its pin) go
// Writing in place   the same with MapPurpose::kWrite; kind kData means: may be written now, as
//                    long as the pin is held
// Writing elsewhere  begin_allocation ─> fill and write the bytes ─> finish_allocation (or
//                    abandon_allocation)
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "async/task.h"
#include "base/io_buffers.h"
#include "base/units.h"
#include "block/dirty_bits.h"
#include "block/storage.h"

namespace ringdisk {

class FormatQueue;
class StorageAccess;

enum class MappingKind : uint8_t {
  kData,        // at `host` in the data storage; bytes beyond the storage's end read as zeros
  kZero,        // reads as zeros, whatever the backing image holds
  kAbsent,      // not in this image: the backing image has it, or zeros where there is none
  kCompressed,  // a compressed cluster: FormatQueue::read_compressed
};

enum class MapPurpose : uint8_t { kRead, kWrite };

// Keeps a host cluster from being reused while bytes move (decision 0003). Lives and dies on
// its queue's shard.
class MappingPin {
 public:
  MappingPin() = default;
  MappingPin(FormatQueue& queue, uint32_t slot) : queue_(&queue), slot_(slot) {}
  MappingPin(MappingPin&& other) noexcept
      : queue_(std::exchange(other.queue_, nullptr)), slot_(other.slot_) {}
  MappingPin& operator=(MappingPin&& other) noexcept {
    if (this != &other) {
      release();
      queue_ = std::exchange(other.queue_, nullptr);
      slot_ = other.slot_;
    }
    return *this;
  }
  ~MappingPin() { release(); }
  inline void release();

 private:
  FormatQueue* queue_ = nullptr;
  uint32_t slot_ = 0;
};

struct Mapping {
  MappingKind kind = MappingKind::kAbsent;
  // kZero, kAbsent: a place is kept for it, at `host` (for map and info; not pinned).
  bool has_kept_place = false;
  ByteCount length;  // how far this holds from the asked offset on; at least 1
  HostOffset host;   // kData: of the first byte asked for; kCompressed: of the compressed stream
  MappingPin pin;    // kData
};

// A place for guest clusters that nobody sees yet. Between begin and finish/abandon, other changes
// of these clusters wait.
struct Allocation {
  GuestRange request;  // the part of the asked range that this allocation serves: a prefix of it
  GuestRange cover;    // whole clusters around `request`, or whole subclusters
  GuestRange changed;  // within `cover`; `request`, and what the caller wrote besides
  HostOffset host;     // of cover's first byte, contiguous
  bool reads_zero = false;  // the place reads as zeros already: zeros need not be written
  uint64_t ticket = 0;      // the format's own
};

// What whole-cluster zeroing or discarding did.
struct ClusterChange {
  ByteCount done;  // from the front of the range; something of it unless an error is given
};

// How a cluster is to be compressed: a property of the request, which no image records.
struct CompressOptions {
  uint32_t level = 0;  // of the image's compression type; 0: the format's default
};

struct FormatLimits {
  ByteCount cluster_size;  // what is allocated, and compressed, as a whole; 1 for raw
  // log2 of the parts of a cluster that are mapped, zeroed and discarded on their own.
  uint32_t subcluster_bits = 0;
  bool read_only = false;
  bool compresses = false;     // has compressed clusters, and writes them
  bool maps_directly = false;  // raw: guest offset is host offset (plus a constant), and zeroing is
                               // the storage's affair

  // Of mappings, zeroing and discarding.
  ByteCount granularity() const { return ByteCount(cluster_size.value() >> subcluster_bits); }
};

class FormatQueue {
 public:
  virtual ~FormatQueue() = default;

  // The storage that Mapping::host and Allocation::host speak of, on this shard.
  virtual StorageAccess& data_storage() = 0;

  // The longest stretch from range.offset on that is of one kind and contiguous in the storage, at
  // most range.length. `range` is not empty and within the disk. Never suspends; false: the tables
  // for it are not in memory.
  virtual bool try_map(GuestRange range, MapPurpose purpose, Mapping& mapping) = 0;
  // Brings the table for `at` into memory.
  virtual Task<void> load_map(GuestOffset at) = 0;

  // A new place for the clusters of a prefix of `range`, for a write of just that prefix. The
  // mapping of the clusters can no longer change until finish or abandon. The old content of cover
  // outside of request is read by the caller (through its own read path) and written to the new
  // place, unless it is all zero and `reads_zero`. nullopt: in the meantime somebody else allocated
  // it; map again.
  virtual Task<std::optional<Allocation>> begin_allocation(GuestRange range) = 0;
  // The bytes are at their place (completed, not flushed). The mapping is recorded when this is
  // done.
  virtual Task<void> finish_allocation(const Allocation& allocation) = 0;
  // The bytes could not be written: the place is given back. Called for every begun allocation that
  // is not finished.
  virtual Task<void> abandon_allocation(const Allocation& allocation) = 0;

  // Whole units of limits().granularity() (the last one may be cut by the disk's end) read as zeros
  // afterwards. Only where !maps_directly. kUnsupported: zeros have to be written, because this
  // image cannot, nowhere, or for parts of a cluster, because not of this one; nothing has changed.
  virtual Task<ClusterChange> zero_clusters(GuestRange clusters, ZeroOptions options) = 0;
  // Whole units are given back; they read as zeros, or as the backing image, as the format has it.
  virtual Task<ClusterChange> discard_clusters(GuestRange clusters) = 0;

  // One whole compressed cluster, decompressed into `target` (cluster_size bytes). `at` is in the
  // cluster.
  virtual Task<void> read_compressed(GuestOffset at, MutableBytes target) = 0;
  // One whole cluster (the disk's last one may be cut) becomes a compressed one, whatever it was
  // before; compression runs in place, on this shard. False: that would not make it smaller, and
  // nothing has changed. Only where limits().compresses. kInvalid: there is no such level.
  virtual Task<bool> write_compressed(GuestOffset at, Bytes cluster, CompressOptions options);

  // Everything completed before is durable afterwards: data first, then metadata in its order.
  virtual Task<void> flush() = 0;

 private:
  friend class MappingPin;
  virtual void release_pin(uint32_t slot) = 0;
};

inline Task<bool> FormatQueue::write_compressed(GuestOffset, Bytes, CompressOptions) {
  UNREACHABLE("this format compresses nothing");
}

inline void MappingPin::release() {
  if (queue_) std::exchange(queue_, nullptr)->release_pin(slot_);
}

class FormatNode {
 public:
  virtual ~FormatNode() = default;

  virtual const char* driver() const = 0;  // "raw", "qcow2"
  virtual const FormatLimits& limits() const = 0;
  virtual ByteCount size() const = 0;  // of the virtual disk; any thread
  virtual Task<std::unique_ptr<FormatQueue>> open_queue(Shard& shard) = 0;
  // The persistent bitmaps of the image. Any shard. kUnsupported: the format has none.
  virtual Task<std::vector<BitmapDescription>> bitmaps();
  // One of them, which may be read as long as the node is open; that of an enabled one goes on
  // changing where the image is open for writing. kNotFound, kInvalid (inconsistent), each with a
  // note.
  virtual Task<std::shared_ptr<const DirtyBits>> find_bitmap(std::string name);
  // After all queues are gone: writes back what is left in order, marks the image clean, closes its
  // storages.
  virtual Task<void> close() = 0;
};

inline Task<std::vector<BitmapDescription>> FormatNode::bitmaps() {
  co_return Error::of(ErrorKind::kUnsupported, "list bitmaps");
}

inline Task<std::shared_ptr<const DirtyBits>> FormatNode::find_bitmap(std::string) {
  co_return Error::of(ErrorKind::kUnsupported, "find bitmap");
}

}  // namespace ringdisk
