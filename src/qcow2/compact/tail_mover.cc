// SPDX-License-Identifier: Apache-2.0
// Batches: refcounts, copies, pointers.
#include "qcow2/compact/tail_mover.h"

#include <algorithm>
#include <atomic>

#include "base/diagnostics.h"
#include "codec/zero_detect.h"
#include "qcow2/damage.h"
#include "runtime/buffer.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kPieceBytesMax = 512 * limits::kKiB;
constexpr size_t kCopiesPerShard = 8;
// Below this another shard costs more than it saves.
constexpr size_t kPiecesPerLaneMin = 4;
// Pointers that stand this close are read and written together.
constexpr uint64_t kRewriteBytesMax = 4096;
// What is zero in the file stays a hole.
constexpr uint64_t kZeroGranuleMin = 4096;
constexpr uint64_t kZeroGranuleMax = 64 * limits::kKiB;

// One shard's part of a batch's copies.
template <class Piece>
class CopyLane {
 public:
  CopyLane(const Image& image, const std::vector<Piece>& pieces, bool is_ciphered,
           std::atomic<size_t>& next)
      : image_(image), pieces_(pieces), is_ciphered_(is_ciphered), next_(next) {}

  Task<void> run(Shard& shard) {
    SharedStorage& bytes = is_ciphered_ ? image_.data_storage() : *image_.storage;
    std::unique_ptr<StorageAccess> storage = co_await StorageAccess::open(bytes, shard);
    auto one = [this, &shard, &storage](size_t) { return work(shard, *storage); };
    co_await when_all(kCopiesPerShard, one);
  }

 private:
  Task<void> work(Shard& shard, StorageAccess& storage) {
    for (;;) {
      const size_t index = next_.fetch_add(1, std::memory_order_relaxed);
      if (index >= pieces_.size()) co_return;
      const Piece& piece = pieces_[index];
      Buffer buffer = shard.buffers().take(piece.length);
      MutableBytes bytes = buffer.first(piece.length);
      Result<void> copied = co_await copy(storage, piece, bytes).result();
      // The others need not begin anything more.
      if (!copied.ok()) next_.store(pieces_.size(), std::memory_order_relaxed);
      co_await std::move(copied);
      co_await NextTurn(shard);
    }
  }

  Task<void> copy(StorageAccess& storage, const Piece& piece, MutableBytes bytes) {
    if (is_ciphered_) {
      co_await copy_ciphered(storage, piece, bytes);
      co_return;
    }
    co_await storage.read(HostOffset(piece.from), MutableBuffers(bytes));
    const uint64_t granule =
        std::clamp(image_.geometry.cluster_size(), kZeroGranuleMin, kZeroGranuleMax);
    for (size_t done = 0; done < bytes.size();) {
      const ZeroRun run = find_zero_run(bytes.subspan(done), granule);
      const HostOffset to(piece.to + done);
      if (run.zero) {
        co_await storage.write_zeroes(HostRange(to, ByteCount(run.length)));
      } else {
        const Bytes part = Bytes(bytes).subspan(done, run.length);
        co_await storage.write(to, ConstBuffers(part));
      }
      done += run.length;
    }
  }

  // The file may end within a cluster, behind the last subcluster of it that anybody sees.
  Task<void> copy_ciphered(StorageAccess& storage, const Piece& piece, MutableBytes bytes) {
    const uint64_t end = storage.size().value();
    const uint64_t there = end - std::min(end, piece.from);
    const MutableBytes shown = bytes.first(std::min<uint64_t>(there, bytes.size()));
    if (shown.empty()) co_return;
    co_await storage.read(HostOffset(piece.from), MutableBuffers(shown));
    co_await storage.write(HostOffset(piece.to), ConstBuffers(Bytes(shown)));
  }

  const Image& image_;
  const std::vector<Piece>& pieces_;
  const bool is_ciphered_;  // zeros are bytes as all others, and leave no hole
  std::atomic<size_t>& next_;
};

// Words that stand close to each other, and what they become.
struct Patch {
  uint64_t place, was, is;
};

Task<void> rewrite_span(const Image& image, StorageAccess& storage, std::span<const Patch> span) {
  const uint64_t begin = span.front().place;
  std::vector<std::byte> bytes(span.back().place + kEntryBytes - begin);
  co_await storage.read(HostOffset(begin), MutableBuffers(MutableBytes(bytes)));
  for (const Patch& patch : span) {
    std::byte* word = &bytes[patch.place - begin];
    // What this would overwrite is not what was read before.
    if (load_be64(word) != patch.was) {
      const Error error = Error::of(ErrorKind::kCorrupt, "compact", patch.place);
      co_await fail(image.world.diagnostics.explain(
          error, image.node_id(),
          "the entry at byte " + std::to_string(patch.place) +
              " of the file belongs to two things at once" + advice(image)));
    }
    store_be64(word, patch.is);
  }
  co_await storage.write(HostOffset(begin), ConstBuffers(Bytes(bytes)));
}

}  // namespace

// --- a batch

Task<void> TailMover::move(std::span<const TailMove> batch) {
  size_t raised = 0;
  Result<void> prepared = co_await prepare(batch, raised).result();
  if (!prepared.ok()) {
    Result<void> taken_back = co_await take_back(batch, raised).result();
    is_whole_ = taken_back.ok();
    co_await fail(prepared.error());
  }
  is_whole_ = false;
  co_await rewrite(batch);
  co_await parts_.storage.flush();
  for (const TailMove& move : batch) co_await lower(move, move.from);
  is_whole_ = true;
}

Task<void> TailMover::prepare(std::span<const TailMove> batch, size_t& raised) {
  for (const TailMove& move : batch) {
    co_await raise(move);
    ++raised;
  }
  const std::vector<Piece> pieces = pieces_of(batch);
  const bool ciphered = is_ciphered(batch.front());
  co_await copy(pieces, ciphered);
  co_await parts_.write_back.flush();
}

Task<void> TailMover::take_back(std::span<const TailMove> batch, size_t raised) {
  for (size_t i = 0; i < raised; ++i) co_await lower(batch[i], batch[i].to);
  co_await parts_.write_back.flush();
}

// --- refcounts

Task<void> TailMover::load(ClusterIndex cluster) {
  const uint64_t block = geometry_.refcount_block_of(cluster);
  if (!parts_.refcounts.has_block(block)) co_await fail(low_refcount(parts_.image, cluster));
  co_await parts_.refcounts.load(block);
}

Task<void> TailMover::set_refcounts(ClusterRun run, uint64_t refcount) {
  for (uint64_t i = 0; i < run.count; ++i) {
    co_await load(run.first + i);
    parts_.refcounts.set(run.first + i, refcount);
  }
}

uint64_t TailMover::count_of(const TailMove& move) const {
  uint64_t count = 0;
  for (size_t i = 0; i < move.pointers; ++i) count += pointers_[move.first_pointer + i].count;
  return count;
}

// A stream's clusters have other streams, too.
Task<void> TailMover::count_stream(const TailMove& move, uint64_t place, Direction direction) {
  const uint64_t count = count_of(move);
  const uint64_t end = geometry_.clusters_of(place + move.length);
  for (uint64_t at = place >> geometry_.cluster_bits(); at < end; ++at) {
    const ClusterIndex cluster(at);
    co_await load(cluster);
    const uint64_t refcount = parts_.refcounts.get(cluster);
    if (direction == Direction::kLower && refcount < count) {
      co_await fail(low_refcount(parts_.image, cluster));
    }
    const uint64_t changed = direction == Direction::kRaise ? refcount + count : refcount - count;
    parts_.refcounts.set(cluster, changed);
  }
}

// Whole clusters were free before and have what is moved there to themselves.
Task<void> TailMover::raise(const TailMove& move) {
  if (move.kind == TailKind::kStream) {
    co_await count_stream(move, move.to, Direction::kRaise);
    co_return;
  }
  const ClusterRun run{ClusterIndex(move.to >> geometry_.cluster_bits()),
                       move.length >> geometry_.cluster_bits()};
  co_await set_refcounts(run, count_of(move));
}

Task<void> TailMover::lower(const TailMove& move, uint64_t place) {
  if (move.kind == TailKind::kStream) {
    co_await count_stream(move, place, Direction::kLower);
    co_return;
  }
  const ClusterRun run{ClusterIndex(place >> geometry_.cluster_bits()),
                       move.length >> geometry_.cluster_bits()};
  co_await set_refcounts(run, 0);
}

// --- bytes

// What lies side by side before and after is copied at once. Streams may overlap by a sector. A
// kept place that is ciphered would be filled with noise, where it may be a hole of the file.
std::vector<TailMover::Piece> TailMover::pieces_of(std::span<const TailMove> batch) const {
  std::vector<Piece> pieces;
  for (const TailMove& move : batch) {
    if (move.is_kept && is_ciphered(move)) continue;
    uint64_t from = move.from;
    const uint64_t end = move.from + move.length;
    if (!pieces.empty()) {
      Piece& last = pieces.back();
      const bool goes_on = move.to - move.from == last.to - last.from && from >= last.from &&
                           from <= last.from + last.length;
      if (goes_on) {
        const uint64_t joined = std::min(end, last.from + kPieceBytesMax);
        last.length = std::max(last.length, joined - last.from);
        from = std::max(from, std::min(end, last.from + last.length));
      }
    }
    while (from < end) {
      const uint64_t length = std::min(end - from, kPieceBytesMax);
      pieces.push_back({from, move.to + (from - move.from), length});
      from += length;
    }
  }
  return pieces;
}

Task<void> TailMover::copy(const std::vector<Piece>& pieces, bool is_ciphered) {
  const auto& shards = parts_.image.world.shards;
  const size_t lanes = std::clamp<size_t>(pieces.size() / kPiecesPerLaneMin, 1, shards.size());
  const uint32_t own = Shard::current().index();
  std::atomic<size_t> next{0};
  CopyLane<Piece> lane(parts_.image, pieces, is_ciphered, next);
  auto one = [&](size_t index) {
    Shard& shard = *shards[(own + index) % shards.size()];
    auto there = [&lane, &shard] { return lane.run(shard); };
    return shard.call(there);
  };
  co_await when_all(lanes, one);
}

// --- pointers

Task<void> TailMover::rewrite(std::span<const TailMove> batch) {
  std::vector<Patch> patches;
  for (const TailMove& move : batch) {
    for (size_t i = 0; i < move.pointers; ++i) {
      const TailPointer& pointer = pointers_[move.first_pointer + i];
      patches.push_back({pointer.place, pointer.raw, pointer.raw + (move.to - move.from)});
    }
  }
  std::sort(patches.begin(), patches.end(),
            [](const Patch& a, const Patch& b) { return a.place < b.place; });
  std::vector<std::span<const Patch>> spans;
  for (size_t first = 0, next = 0; first < patches.size(); first = next) {
    const uint64_t end = (patches[first].place / kRewriteBytesMax + 1) * kRewriteBytesMax;
    for (next = first + 1; next < patches.size() && patches[next].place < end;) ++next;
    spans.push_back(std::span<const Patch>(patches).subspan(first, next - first));
  }
  for (size_t done = 0; done < spans.size();) {
    const size_t count = std::min<size_t>(spans.size() - done, limits::kPiecesInFlightMax);
    auto one = [&, done](size_t i) {
      return rewrite_span(parts_.image, parts_.storage, spans[done + i]);
    };
    co_await when_all(count, one);
    done += count;
  }
}

// --- refcount blocks and their table

// The blocks that count the new places are durable before any of them moves: of two blocks that
// count each other one may be named by its old place after a crash.
Task<void> TailMover::move_blocks(std::span<const BlockMove> batch) {
  is_whole_ = false;
  for (const BlockMove& move : batch) {
    const ClusterRun to{move.to, 1};
    co_await set_refcounts(to, 1);
  }
  co_await parts_.write_back.flush();
  for (const BlockMove& move : batch) {
    co_await parts_.refcounts.load(move.block);
    parts_.refcounts.move_block(move.block, geometry_.host_offset(move.to));
  }
  co_await parts_.write_back.flush();
  for (const BlockMove& move : batch) {
    const ClusterRun from{move.from, 1};
    co_await set_refcounts(from, 0);
  }
  is_whole_ = true;
}

Task<void> TailMover::move_refcount_table(ClusterRun to) {
  const ClusterRun from{geometry_.host_cluster(parts_.refcounts.table_place()), to.count};
  is_whole_ = false;
  co_await set_refcounts(to, 1);
  co_await parts_.write_back.flush();
  parts_.refcounts.move_table(geometry_.host_offset(to.first), parts_.refcounts.table_entries());
  co_await parts_.write_back.flush();
  co_await set_refcounts(from, 0);
  is_whole_ = true;
}

}  // namespace ringdisk::qcow2
