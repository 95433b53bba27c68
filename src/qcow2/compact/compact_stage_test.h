// SPDX-License-Identifier: Apache-2.0
// For tests of compaction: an image with holes on a disk of its own, to be compacted once; the
// same as the sweeps want it: the power failing anywhere in it, every request of it failing once.
#pragma once

#include <gtest/gtest.h>

#include "async/cancel.h"
#include "qcow2/compact/compact_fixture_test.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {

// Small enough that a small image takes several passes and batches.
inline CompactLimits small_limits(uint64_t seed) {
  Random random(seed);
  CompactLimits limits;
  limits.tail_clusters = 4 + random.below(200);
  limits.pointers_max = 64 + random.below(1000);
  limits.batch_moves = 1 + random.below(20);
  limits.batch_bytes = 4096 << random.below(8);
  return limits;
}

inline void expect_still_dirty(const std::vector<bool>& before, const std::vector<bool>& after) {
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(after[i] || !before[i]) << "granule " << i << " is dirty no more";
  }
}

// An image with holes on a disk of its own.
class CompactStage {
 public:
  CompactStage(TestImage image, uint64_t seed, HolesOptions options,
               sim::SimDiskOptions disk_options)
      : image(image), world(seed, 2), disk(disk_options, seed), open(opener_of(disk)) {
    auto make = [&](Shard&) {
      return make_image_with_holes(world.world(), image, open, seed, options, model);
    };
    expect_ok(world.run(make), "making the image");
  }

  Result<CompactReport> compact(CompactLimits limits, CancelToken cancel = CancelToken()) {
    auto body = [&](Shard&) {
      return compact_test_image(world.world(), storage_on(disk), limits, cancel);
    };
    return world.run(body);
  }
  void expect_sound() {
    auto check = [&](Shard&) { return check_test_image(world.world(), image, storage_on(disk)); };
    expect_ok(world.run(check), "checking");
    auto look = [&](Shard&) { return expect_holes_model(world.world(), image, open, model); };
    expect_ok(world.run(look), "reading");
  }
  // Writes go on, and change nothing else.
  void expect_writable(uint64_t seed) {
    auto change = [&](Shard&) {
      return change_holes(world.world(), image, storage_on(disk), seed, HolesOptions(),
                          model.content);
    };
    expect_ok(world.run(change), "writing afterwards");
    auto see = [&](Shard&) { return read_bitmaps(world.world(), storage_on(disk)); };
    Result<SeenBitmaps> seen = world.run(see);
    ASSERT_TRUE(seen.ok());
    for (const auto& [name, dirty] : model.bitmaps.dirty) {
      expect_still_dirty(dirty, seen.value().dirty[name]);
    }
    model.bitmaps = std::move(seen).value();
    expect_sound();
  }
  uint64_t file_clusters() const { return disk.size() >> image.cluster_bits; }
  void expect_ok(const Result<void>& result, const char* what) {
    EXPECT_TRUE(result.ok()) << what << ": " << world.diagnostics().describe(result.error());
  }

  TestImage image;
  sim::SimWorld world;
  sim::SimDisk disk;
  sim::OpenStorages open;
  HolesModel model;
};

// Images have so many holes that something moves.
inline void expect_compacted(CompactStage& stage, CompactLimits limits) {
  const uint64_t before = stage.disk.size();
  const Result<CompactReport> done = stage.compact(limits);
  ASSERT_TRUE(done.ok()) << stage.world.diagnostics().describe(done.error());
  const CompactReport& report = done.value();
  EXPECT_EQ(report.bytes_before, before);
  EXPECT_EQ(report.bytes_after, stage.disk.size());
  EXPECT_LE(report.bytes_after, before);
  stage.expect_sound();
}

// --- crashes and faults

class CompactCrash final : public sim::CrashScenario {
 public:
  CompactCrash(TestImage image, HolesOptions options, uint64_t seed)
      : image_(image), options_(options), seed_(seed) {}

  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    return make_image_with_holes(world, image_, open, seed_, options_, model_);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    const CompactReport report = co_await compact_test_image(world, std::move(open().front()),
                                                             small_limits(seed_), CancelToken());
    EXPECT_LE(report.bytes_after, report.bytes_before);
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    image_.leaks_allowed = true;
    std::unique_ptr<SharedStorage> first = std::move(open().front());
    co_await check_test_image(world, image_, std::move(first));
    co_await expect_holes_model(world, image_, open, model_);
    co_await expect_repaired_at_open(world, image_, open);
    co_await expect_holes_model(world, image_, open, model_);
    // What is left can be compacted again.
    std::unique_ptr<SharedStorage> second = std::move(open().front());
    const CompactLimits limits = small_limits(seed_ + 1);
    const CancelToken never;
    co_await compact_test_image(world, std::move(second), limits, never);
    co_await expect_holes_model(world, image_, open, model_);
  }

 private:
  TestImage image_;
  const HolesOptions options_;
  const uint64_t seed_;
  HolesModel model_;
};

// Whether a failure was injected into the compaction.
inline bool run_compaction_with_fault(TestImage image, HolesOptions options, uint64_t seed,
                                      uint64_t n) {
  CompactStage stage(image, seed, options, sim::SimDiskOptions::file());
  sim::SimFaults faults;
  faults.fail_at = n;
  stage.disk.set_faults(&faults);
  const Result<CompactReport> done = stage.compact(small_limits(seed));
  stage.disk.set_faults(nullptr);
  if (!done.ok()) {
    EXPECT_EQ(done.error().errno_value, EIO);
  }
  if (faults.failed == 0) {
    EXPECT_TRUE(done.ok());
  }
  stage.image.leaks_allowed = true;
  stage.expect_sound();
  stage.expect_writable(seed + 1);
  return faults.failed != 0;
}

}  // namespace ringdisk::qcow2
