// SPDX-License-Identifier: Apache-2.0
// Compressed clusters written: compress here, ask the home shard for a place, write the stream, let
// the home shard record it.
//
//   this shard   compress ──┐        ┌── write the stream ──┐
//   home shard              └ place ─┘                      └ record
//
// One cluster is compressed at a time and the shard looks at everything else in between, so a queue
// with many requests keeps its shard busy and yet answers calls within one cluster's time (about a
// millisecond for 64 KiB); the home shard has clusters of its own to compress.
#include "base/diagnostics.h"
#include "qcow2/queue.h"
#include "runtime/next_turn.h"

namespace ringdisk::qcow2 {

Task<bool> Qcow2Queue::write_compressed(GuestOffset at, Bytes cluster, CompressOptions options) {
  Buffer buffer = co_await shard_.buffers().try_take(image_.geometry.cluster_size());
  const size_t size = co_await compress(cluster, buffer.bytes(), options.level);
  if (size == 0) co_return false;
  const Bytes stream = buffer.first(size);
  auto begin = [this, size] { return home_.begin_compressed(ByteCount(size)); };
  const std::optional<HostOffset> place = co_await home_shard_.call(begin);
  if (!place) co_return false;
  Result<void> written = co_await storage_->write(*place, ConstBuffers(stream)).result();
  if (!written.ok()) {
    auto abandon = [this, place, size] {
      return home_.abandon_compressed(*place, ByteCount(size));
    };
    Result<void> abandoned = co_await home_shard_.call(abandon).result();
    static_cast<void>(abandoned.ok());  // the write's error is the cause
    co_return written.error();
  }
  auto finish = [this, at, place, size] {
    return home_.finish_compressed(at, *place, ByteCount(size));
  };
  co_await home_shard_.call(finish);
  co_return true;
}

// The stream's length, less than a cluster; 0: it would be no shorter.
Task<size_t> Qcow2Queue::compress(Bytes cluster, MutableBytes target, uint32_t level) {
  const auto cluster_size = static_cast<size_t>(image_.geometry.cluster_size());
  Diagnostics& diagnostics = image_.world.diagnostics;
  co_await check_compression_level(image_.header.compression, level, diagnostics);
  MutexLock lock = co_await compressing_.lock();
  co_await NextTurn(shard_);
  if (cluster.size() == cluster_size) {
    co_return compressor_.compress(cluster, target.first(cluster_size - 1), level);
  }
  // Behind the disk's end there are zeros.
  Buffer padded = co_await shard_.buffers().try_take(cluster_size);
  copy_bytes(cluster, padded.first(cluster.size()));
  fill_zero(padded.first(cluster_size).subspan(cluster.size()));
  co_return compressor_.compress(padded.first(cluster_size), target.first(cluster_size - 1), level);
}

}  // namespace ringdisk::qcow2
