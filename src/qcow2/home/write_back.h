// SPDX-License-Identifier: Apache-2.0
// WriteBack: brings what changed in memory to the disk, so that a crash at any moment leaks
// clusters at worst. Home shard only. One round, from the state of all tables at one moment (no
// suspension while it is taken):
//
//   0  flush the data file, where there is one
//   1  write refcount blocks, and new L2 tables whole: nothing durable points at either yet
//      flush: guest data that was completed before is durable, too
//   2  only where there are new refcount blocks or a moved refcount table:
//      write the table's entries, flush; moved: write the header's pointer, flush
//   3  write L2 slices and L1 entries                          all they point at is durable
//      flush
//   4  clusters whose pointers this removed go on their way through the quarantine
//
// With lazy refcounts (a compatible feature of version 3, or lazy-refcounts=on) a round leaves what
// is dirty of refcounts in memory, and the steps for it out; the dirty bit is durable before the
// first entry is written whose cluster the disk does not count. Where memory for it runs out, a
// round writes them all; the close does, and takes the bit off. After a crash the next open for
// writing counts anew.
//
// A flush with nothing dirty is one flush of the storage. Callers that come while a round runs
// share the next one. A round that fails is the image's end as a writable one (health.h).
#pragma once

#include <set>
#include <vector>

#include "async/mutex.h"
#include "qcow2/home/quarantine.h"
#include "qcow2/home/slice_cache.h"

namespace ringdisk::qcow2 {

class WriteBack {
 public:
  // `data`: the data file; null: guest data lies in `storage`.
  WriteBack(Image& image, StorageAccess& storage, StorageAccess* data, SliceCache& slices,
            RefcountBlocks& refcounts, Allocator& allocator, Quarantine& quarantine);

  // Everything recorded before the call is durable afterwards, and every write to the storage that
  // completed before it.
  Task<void> flush();
  // Whether a round would write anything.
  bool is_dirty() const;
  // From now on every round writes refcounts: the image is to be closed, or edited as a whole.
  void end_laziness() { is_lazy_ = false; }
  // Takes the dirty bit off where a lazy round has set it; everything is durable.
  Task<void> clear_dirty_bit();
  bool has_set_dirty_bit() const { return has_set_dirty_bit_; }

 private:
  // What one round writes.
  struct Round {
    bool leaves_refcounts = false;
    std::vector<Slice*> slices;
    std::set<uint64_t> new_tables;
    RefcountBlocks::Dirty refcounts;
    std::vector<MetadataWrite> table_writes;  // step 1
    std::vector<MetadataWrite> entry_writes;  // step 3
    std::vector<ClusterRun> freed;
  };
  Round take_round();
  void take_tables(Round& round);
  void take_slices(Round& round);
  void take_l1_entries(Round& round);
  std::vector<std::byte> encode_table(uint64_t l1_index) const;
  void encode_slice(const Slice& slice, MutableBytes target) const;

  bool may_leave_refcounts() const;
  Task<void> write_dirty_bit(bool is_set);
  Task<void> run_round();
  Task<void> perform(const Round& round);
  Task<void> write_all(const std::vector<MetadataWrite>& writes);
  Task<void> write_one(const MetadataWrite& write);
  Task<void> write_refcount_table(const RefcountBlocks::Dirty& refcounts);

  Image& image_;
  StorageAccess& storage_;
  StorageAccess* const data_;
  SliceCache& slices_;
  RefcountBlocks& refcounts_;
  Allocator& allocator_;
  Quarantine& quarantine_;
  Mutex running_;
  bool is_lazy_;
  bool has_set_dirty_bit_ = false;
  uint64_t rounds_begun_ = 0;
  uint64_t rounds_done_ = 0;
};

}  // namespace ringdisk::qcow2
