// SPDX-License-Identifier: Apache-2.0
// TableWalk on simulated shards: batches and windows of any size, and any number of lanes, give the
// same.
#include "qcow2/edit/table_walk.h"

#include <gtest/gtest.h>

#include "qcow2/edit/edit.h"
#include "qcow2/edit/edit_fixture_test.h"
#include "qcow2/edit/table_editor.h"
#include "sim/seeds.h"

namespace ringdisk::qcow2 {
namespace {

using Table = TableEditor::Table;

// Nothing fits: a table a batch, a refcount block a window.
TableWalkLimits smallest() {
  TableWalkLimits limits;
  limits.batch_bytes = limits.window_clusters = 1;
  return limits;
}

class WalkedImage {
 public:
  WalkedImage(uint64_t seed, uint32_t shards)
      : world_(seed, shards),
        image_(drawn_edited_image_or_extended(seed)),
        disk_(sim::SimDiskOptions::file(), seed) {
    world_.diagnostics().add_node("disk.qcow2");
    disk_.poke(0, encode_test_image(image_, kEditedSize));
    Content content(kEditedSize.value());
    auto write = [&](Shard&) {
      return write_image(world_.world(), image_, storage_on(disk_), seed, content);
    };
    EXPECT_TRUE(world_.run(write).ok());
  }
  Result<void> edit(const ImageEdit& edit) {
    auto body = [&](Shard&) { return edit_here(edit); };
    return world_.run(body);
  }
  void expect_sound() {
    auto check = [&](Shard&) {
      return check_test_image(world_.world(), image_, storage_on(disk_));
    };
    EXPECT_TRUE(world_.run(check).ok());
  }

 private:
  Task<void> edit_here(const ImageEdit& edit) {
    const Drivers drivers;
    const OpenGate gate(world_.diagnostics());
    Graph graph(world_.world(), drivers, gate);
    co_await edit_image(graph, storage_on(disk_), edit);
  }

  sim::SimWorld world_;
  const TestImage image_;
  sim::SimDisk disk_;
};

Task<Table> read_active(HomeParts parts) {
  TableEditor tables(parts);
  co_return co_await tables.read_table(parts.image.header.l1_table, parts.image.header.l1_size);
}

// Clusters, as often as they are led to; each batch is in order.
Task<void> collect(HomeParts parts, TableWalkLimits limits, std::vector<uint64_t>& clusters) {
  const Table l1 = co_await read_active(parts);
  TableWalk walk(parts.image, parts.storage, parts.refcounts, l1, limits);
  for (;;) {
    const ClusterRuns runs = co_await walk.next_batch();
    if (runs.empty()) break;
    EXPECT_TRUE(std::is_sorted(runs.begin(), runs.end(), &comes_before));
    for (ClusterRun run : runs) {
      for (uint64_t i = 0; i < run.count; ++i) clusters.push_back((run.first + i).value());
    }
  }
  std::sort(clusters.begin(), clusters.end());
}

TEST(TableWalkTest, CollectsTheSameInBatchesOfAnySizeOnAnyNumberOfShards) {
  sim::for_each_seed(20, [](uint64_t seed) {
    std::vector<std::vector<uint64_t>> collected(6);
    for (uint32_t shards = 1; shards <= 3; ++shards) {
      WalkedImage image(seed, shards);
      const ImageEdit whole = [&](HomeParts parts) {
        return collect(parts, TableWalkLimits(), collected[2 * shards - 2]);
      };
      const ImageEdit pieces = [&](HomeParts parts) {
        return collect(parts, smallest(), collected[2 * shards - 1]);
      };
      ASSERT_TRUE(image.edit(whole).ok());
      ASSERT_TRUE(image.edit(pieces).ok());
    }
    EXPECT_FALSE(collected.front().empty());
    for (const std::vector<uint64_t>& one : collected) EXPECT_TRUE(one == collected.front());
  });
}

Task<void> clear_and_correct(HomeParts parts) {
  Table l1 = co_await read_active(parts);
  TableWalk clearing(parts.image, parts.storage, parts.refcounts, l1);
  co_await clearing.clear_copied_flags(l1);
  for (uint64_t entry : l1) EXPECT_EQ(entry & kCopied, uint64_t{0});
  TableWalk correcting(parts.image, parts.storage, parts.refcounts, l1, smallest());
  co_await correcting.correct_copied_flags(l1);
  TableEditor tables(parts);
  co_await tables.write_table(parts.image.header.l1_table, l1);
}

TEST(TableWalkTest, CorrectsFlagsInWindowsOfOneRefcountBlock) {
  sim::for_each_seed(20, [](uint64_t seed) {
    WalkedImage image(seed, 1 + seed % 3);
    const ImageEdit edit = &clear_and_correct;
    ASSERT_TRUE(image.edit(edit).ok());
    image.expect_sound();
  });
}

}  // namespace
}  // namespace ringdisk::qcow2
