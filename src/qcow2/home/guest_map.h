// SPDX-License-Identifier: Apache-2.0
// GuestMap: every change of the mapping from guest clusters to host clusters, as coroutines on the
// home shard. Requests that change the same clusters wait for each other on a range lock; lookups
// of any shard go on meanwhile and see an entry before or after its change.
//
//   begin_allocation    lock, make the L2 table ours, see which clusters need a place, allocate
//                       (refcount one, in memory)
//   …                   the caller fills the place; lookups still find the old content
//   finish_allocation   entries point at the place, old clusters are released, unlock
//                       (durable with the next flush)
//
// With extended L2 entries the place is that of subclusters (guest_map_subclusters.cc).
#pragma once

#include <memory>
#include <optional>
#include <unordered_map>

#include "async/range_lock.h"
#include "qcow2/home/write_back.h"

namespace ringdisk::qcow2 {

class GuestMap {
 public:
  GuestMap(Image& image, SliceCache& slices, Allocator& allocator, Quarantine& quarantine,
           const MetadataMap& metadata);
  ~GuestMap();

  // As FormatQueue has them.
  Task<void> load(GuestOffset at);
  Task<std::optional<Allocation>> begin_allocation(GuestRange range);
  Task<void> finish_allocation(Allocation allocation);
  Task<void> abandon_allocation(Allocation allocation);
  // The cluster is from now on the compressed stream of `size` bytes at `at`, which is complete and
  // counted (guest_map_compressed.cc). On an error nothing has changed.
  Task<ClusterChange> record_compressed(ClusterIndex guest, HostOffset at, ByteCount size);
  Task<ClusterChange> zero_clusters(GuestRange clusters, ZeroOptions options);
  Task<ClusterChange> discard_clusters(GuestRange clusters);

 private:
  // A begun allocation: its clusters stay locked until it is finished or abandoned.
  struct Pending {
    Pending(RangeLock& lock, ClusterIndex first, uint64_t end)
        : guard(lock, first.value(), end), guest_first(first) {}
    RangeGuard guard;
    ClusterIndex guest_first;
    ClusterRun host;
    // Of the guest's units (clusters or subclusters): what the caller fills, and what of it the
    // request writes to.
    uint64_t cover_first = 0, cover_end = 0;
    uint64_t touched_first = 0, touched_end = 0;
    bool reads_zero = false;
    bool was_kept = false;  // the place was the clusters' own already (preallocated zeros)
  };
  enum class Removal : uint8_t { kZero, kZeroKeepingPlace, kDiscard };

  Task<Slice*> slice_for(ClusterIndex guest);
  Task<void> ensure_own_table(uint64_t l1_index);
  Task<void> add_table(uint64_t l1_index);
  Task<void> copy_table(uint64_t l1_index);
  Task<void> choose_place(Pending& pending, uint64_t end, Slice& slice);
  Task<NewClusters> allocate_for(ClusterIndex guest, uint64_t count);
  void cover_whole(Pending& pending) const;
  GuestRange units_range(uint64_t first, uint64_t end) const;
  uint64_t count_placeless(const Slice& slice, ClusterIndex first, uint64_t end) const;
  uint64_t count_kept(const Slice& slice, ClusterIndex first, uint64_t end) const;
  bool is_invalid(L2Entry entry) const;
  bool is_kept(L2Entry entry) const;
  std::unique_ptr<Pending> take_pending(const Allocation& allocation);
  Task<void> record(const Pending& pending);
  L2Entry recorded(const Pending& pending, uint64_t index, L2Entry old) const;
  Task<void> give_place_back(const Pending& pending);

  // Images with subclusters.
  Task<void> choose_subclusters(Pending& pending, uint64_t first, uint64_t end, Slice& slice);
  Task<void> choose_new_subclusters(Pending& pending, uint64_t first, uint64_t end, Slice& slice);
  void choose_kept_subclusters(Pending& pending, uint64_t first, uint64_t end, const Slice& slice);
  L2Entry recorded_subclusters(const Pending& pending, uint64_t index, L2Entry old) const;
  L2Entry subclusters_after(L2Entry entry, uint32_t mask, Removal removal) const;
  Result<GuestRange> without_cut_compressed(const Slice& slice, GuestRange units,
                                            Removal removal) const;
  uint32_t mask_of(GuestRange units, ClusterIndex guest) const;

  ByteCount skip_untouched(GuestRange clusters) const;
  uint64_t cluster_end(GuestRange units) const;
  GuestRange front_in_slice(GuestRange units) const;
  Task<ClusterChange> remove_in_slice(GuestRange units, Removal removal);
  Result<bool> apply_removal(Slice& slice, GuestRange units, Removal removal, bool only_look);
  L2Entry entry_after(L2Entry entry, Removal removal) const;
  void release(L2Entry entry);

  Image& image_;
  SliceCache& slices_;
  Allocator& allocator_;
  Quarantine& quarantine_;
  const MetadataMap& metadata_;
  RangeLock clusters_;  // guest clusters whose mapping is being changed
  RangeLock tables_;    // L1 indexes
  std::unordered_map<uint64_t, std::unique_ptr<Pending>> pending_;
  uint64_t tickets_ = 0;
};

}  // namespace ringdisk::qcow2
