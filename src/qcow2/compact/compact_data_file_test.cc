// SPDX-License-Identifier: Apache-2.0
// Compaction of images whose guest data lies in a file of its own: the image's tables and bitmaps
// are moved, and the data file is not touched; the power failing in either file.
#include <gtest/gtest.h>

#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/compact/compactor.h"
#include "qcow2/data_file_fixture_test.h"
#include "qcow2/edit/resize.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

using Action = BitmapEdit::Action;

constexpr ByteCount kGrownSize(3 * kEditedSize.value());

// What an image with a data file holds.
struct PairModel {
  Content content;
  SeenBitmaps bitmaps;
};

Task<void> edit_bitmaps_on(const World& world, const sim::OpenStorages& open,
                           std::vector<BitmapEdit> edits) {
  const ImageEdit edit = [&edits](HomeParts parts) { return parts.bitmaps.edit(edits); };
  co_await edit_image_on(world, open, edit);
}

Task<void> change_on(const World& world, TestImage image, const sim::OpenStorages& open,
                     uint64_t seed, Content& content) {
  std::shared_ptr<DeviceNode> node = co_await open_image_on(world, image, open, nullptr, false);
  std::unique_ptr<DeviceQueue> queue = co_await node->open_queue(Shard::current());
  Result<void> changed = co_await change_content(*queue, seed, content).result();
  queue.reset();
  Result<void> closed = co_await node->close().result();
  co_await std::move(changed);
  co_await std::move(closed);
}

// Bitmaps that come and go and a longer L1 table leave holes.
Task<void> prepare_files(const World& world, TestImage image, const sim::OpenStorages& open,
                         uint64_t seed, PairModel& model) {
  std::unique_ptr<SharedStorage> storage = first_of(open);
  co_await create_test_image(image, *storage, kEditedSize);
  co_await storage->node->close();
  model.content.assign(kEditedSize.value(), std::byte());
  std::vector<BitmapEdit> edits = {add_bitmap("gone"), add_bitmap("kept", 512)};
  co_await edit_bitmaps_on(world, open, edits);
  co_await change_on(world, image, open, seed, model.content);
  edits = {bitmap_edit(Action::kRemove, "gone"), add_bitmap("late")};
  co_await edit_bitmaps_on(world, open, edits);
  const ImageEdit grow = [](HomeParts parts) { return resize_disk(parts, kGrownSize); };
  co_await edit_image_on(world, open, grow);
  model.content.resize(kGrownSize.value());
  co_await change_on(world, image, open, seed + 1, model.content);
  model.bitmaps = co_await bitmaps_on(world, open);
  EXPECT_EQ(model.bitmaps.dirty.size(), 2u);
}

Task<void> run_compactor(HomeParts parts, CompactReport& report) {
  const std::function<void(CompactProgress)> no_progress;
  const CompactLimits limits;
  const CancelToken never;
  Compactor compactor(parts, limits, never, no_progress);
  report = co_await compactor.run();
}

Task<void> compact_on(const World& world, const sim::OpenStorages& open, CompactReport& report) {
  const ImageEdit edit = [&report](HomeParts parts) { return run_compactor(parts, report); };
  co_await edit_image_on(world, open, edit);
}

Task<void> expect_model(const World& world, TestImage image, const sim::OpenStorages& open,
                        const PairModel& model) {
  image.leaks_allowed = true;
  std::unique_ptr<SharedStorage> checked = first_of(open);
  co_await check_test_image(world, image, std::move(checked));
  const Content content = co_await content_on(world, image, open, nullptr);
  EXPECT_TRUE(content == model.content) << "the disk holds something else";
  const SeenBitmaps seen = co_await bitmaps_on(world, open);
  EXPECT_TRUE(seen.dirty == model.bitmaps.dirty) << "the bitmaps say something else";
}

class DataFileCompactCrash final : public sim::CrashScenario {
 public:
  DataFileCompactCrash(TestImage image, uint64_t seed) : image_(image), seed_(seed) {}

  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    return prepare_files(world, image_, open, seed_, model_);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    co_await compact_on(world, open, report);
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    co_await expect_model(world, image_, open, model_);
    CompactReport again;
    co_await compact_on(world, open, again);
    co_await expect_model(world, image_, open, model_);
  }

  CompactReport report;

 private:
  const TestImage image_;
  const uint64_t seed_;
  PairModel model_;
};

TEST(CompactDataFileTest, TablesMoveAndACrashLosesNothing) {
  sim::for_each_seed(8, [](uint64_t seed) {
    TestImage image = data_file_image(seed);
    image.cluster_bits = image.extended_l2 ? 14 : 9 + seed % 4;
    DataFileCompactCrash scenario(image, seed);
    sim::CrashSweepOptions sweep;
    sweep.shards = 1;
    sweep.points = 25;
    sweep.disks = {sim::SimDiskOptions::file(), sim::SimDiskOptions::file()};
    EXPECT_GT(run_crash_sweep(scenario, seed, sweep), 0u);
    EXPECT_LT(scenario.report.bytes_after, scenario.report.bytes_before);
    for (const std::string& obstacle : scenario.report.obstacles) ADD_FAILURE() << obstacle;
  });
}

// Whether a failure was injected into the compaction.
bool run_with_fault(uint64_t seed, uint64_t n) {
  TestImage image = data_file_image(seed);
  image.cluster_bits = image.extended_l2 ? 14 : 9 + seed % 4;
  sim::SimWorld world(seed, 1);
  sim::SimDisk disk(sim::SimDiskOptions::file(), seed), data(sim::SimDiskOptions::file(), seed + 1);
  const sim::OpenStorages open = [&disk, &data] {
    std::vector<std::unique_ptr<SharedStorage>> both;
    both.push_back(storage_on(disk));
    both.push_back(data_on(data));
    return both;
  };
  PairModel model;
  auto prepare = [&](Shard&) { return prepare_files(world.world(), image, open, seed, model); };
  EXPECT_TRUE(world.run(prepare).ok());
  sim::SimFaults faults;
  faults.fail_at = n;
  disk.set_faults(&faults);
  CompactReport report;
  auto compact = [&](Shard&) { return compact_on(world.world(), open, report); };
  const Result<void> done = world.run(compact);
  disk.set_faults(nullptr);
  EXPECT_TRUE(done.ok() || done.error().errno_value == EIO);
  EXPECT_TRUE(done.ok() || faults.failed != 0);
  auto look = [&](Shard&) { return expect_model(world.world(), image, open, model); };
  EXPECT_TRUE(world.run(look).ok());
  EXPECT_TRUE(world.run(compact).ok());
  EXPECT_TRUE(world.run(look).ok());
  return faults.failed != 0;
}

TEST(CompactDataFileTest, EveryFailureIsToldAndLosesNothing) {
  for (uint64_t seed : {1, 2}) {
    auto run = [seed](uint64_t n) { return run_with_fault(seed, n); };
    EXPECT_GT(sim::sweep_faults(2000, run), 10u);
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
