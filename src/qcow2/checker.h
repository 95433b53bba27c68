// SPDX-License-Identifier: Apache-2.0
// Checker: the state of one check. Lives in one coroutine, on one shard. check.cc drives it,
// check_tables.cc follows guest tables, check_refcounts.cc compares.
#pragma once

#include <cstdarg>
#include <functional>
#include <string>

#include "block/format_admin.h"
#include "block/storage_access.h"
#include "qcow2/header.h"
#include "qcow2/l2_entry.h"
#include "qcow2/reference_counts.h"
#include "qcow2/snapshot_table.h"

namespace ringdisk::qcow2 {

class Checker {
 public:
  Checker(StorageAccess& storage, Diagnostics& diagnostics,
          std::function<void(CheckProgress)> on_progress);

  Task<void> run();
  CheckReport take_report() { return std::move(report_); }

 private:
  enum class Active : uint8_t { kNo, kYes };

  // A corruption or a leak, with its message; messages are bounded, counts are not.
  void corruption(const char* format, ...) __attribute__((format(printf, 2, 3)));
  void leak(const char* format, ...) __attribute__((format(printf, 2, 3)));
  void add_message(const char* format, va_list arguments) __attribute__((format(printf, 2, 0)));
  void advance(uint64_t bytes);

  // Counts a reference to each cluster that [at, at + length) touches. False, and a corruption,
  // where it cannot be in the file.
  bool refer(HostOffset at, uint64_t length, const char* what);

  Task<void> refer_metadata();
  Task<void> refer_bitmaps();
  Task<void> refer_bitmap_directory(HostOffset at, uint64_t length, uint32_t count);
  Task<void> refer_bitmap_table(HostOffset at, uint32_t entries);
  Task<std::vector<uint64_t>> read_table(HostOffset at, uint64_t entries);

  Task<void> check_l1(HostOffset at, uint32_t entries, Active active);
  Task<void> check_l2(HostOffset table, uint64_t l1_index, Active active);
  void check_l2_entry(L2Entry entry, uint64_t guest_cluster, Active active);

  Task<void> load_refcount_table();
  Task<void> compare_refcounts();
  Task<void> compare_block(uint64_t block);
  Task<void> check_copied_flags();
  Task<void> check_copied_of_l2(HostOffset table);
  Task<uint64_t> refcount_of(ClusterIndex cluster);

  StorageAccess& storage_;
  Diagnostics& diagnostics_;
  std::function<void(CheckProgress)> on_progress_;
  Header header_;
  Geometry geometry_{16, 4};
  uint64_t file_clusters_ = 0;
  ReferenceCounts references_;
  std::vector<uint64_t> refcount_table_;
  std::vector<uint64_t> active_l1_;
  std::vector<std::byte> refcount_block_;  // the one read last
  uint64_t refcount_block_number_ = ~uint64_t{0};
  uint64_t previous_data_end_ = 0;  // for counting fragments
  CheckProgress progress_;
  CheckReport report_;
};

}  // namespace ringdisk::qcow2
