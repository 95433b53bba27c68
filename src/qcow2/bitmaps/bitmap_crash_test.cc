// SPDX-License-Identifier: Apache-2.0
// The power fails, or a request, anywhere while an image with bitmaps is written to or its bitmaps
// are edited: a bitmap that counts never misses a change; otherwise it says that it is
// inconsistent.
#include <gtest/gtest.h>

#include <set>

#include "qcow2/bitmaps/bitmap_fixture_test.h"
#include "qcow2/edit/resize.h"
#include "qcow2/edit/snapshots.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

using Action = BitmapEdit::Action;

constexpr ByteCount kSize(512 << 10);
constexpr size_t kGranules = kSize.value() / kTestGranularity;

enum class Work : uint8_t { kWrite, kEdit, kRemoveAll, kGrow, kApply };
constexpr Work kAllWorks[] = {Work::kWrite, Work::kEdit, Work::kRemoveAll, Work::kGrow,
                              Work::kApply};

struct Plan {
  TestImage image;
  Work work = Work::kWrite;
  uint64_t seed = 1;
  uint32_t padding = 0;  // in the header
};

Plan drawn_plan(Work work, uint64_t seed) {
  Random random(seed);
  Plan plan;
  plan.work = work;
  plan.seed = seed;
  plan.image.cluster_bits = static_cast<uint32_t>(11 + random.below(4));
  plan.image.refcount_order = static_cast<uint32_t>(3 + random.below(4));
  plan.image.leaks_allowed = true;
  plan.image.lazy_refcounts = seed % 4 == 0;
  // Every third has its extension across two sectors.
  plan.padding = seed % 3 == 0 ? 384 : static_cast<uint32_t>(8 * random.below(20));
  return plan;
}

Task<void> take_snapshot(const World& world, std::unique_ptr<SharedStorage> storage,
                         SnapshotEdit::Action action) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  SnapshotEdit edit;
  edit.action = action;
  edit.name = "one";
  co_await edit_snapshots(graph, std::move(storage), edit);
}

Task<void> grow(const World& world, std::unique_ptr<SharedStorage> storage) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  co_await resize_image(graph, std::move(storage), ByteCount(2 * kSize.value()));
}

// Content, a snapshot of other content, an enabled bitmap with something in it and a disabled one.
Task<void> prepare_image(const World& world, Plan plan, const sim::OpenStorages& open) {
  std::unique_ptr<SharedStorage> storage = std::move(open().front());
  {
    const std::vector<std::byte> bytes = encode_padded_image(plan.image, kSize, plan.padding, "");
    std::unique_ptr<StorageAccess> access =
        co_await StorageAccess::open(*storage, Shard::current());
    co_await access->write(HostOffset(0), ConstBuffers(Bytes(bytes)));
    co_await access->flush();
  }
  co_await storage->node->close();
  std::vector<bool> touched(kGranules);
  std::unique_ptr<SharedStorage> first = std::move(open().front());
  co_await change_image_at_random(world, plan.image, std::move(first), plan.seed, 6, touched);
  if (plan.work == Work::kApply) {
    std::unique_ptr<SharedStorage> second = std::move(open().front());
    co_await take_snapshot(world, std::move(second), SnapshotEdit::Action::kCreate);
    std::unique_ptr<SharedStorage> third = std::move(open().front());
    co_await change_image_at_random(world, plan.image, std::move(third), plan.seed + 1, 6, touched);
  }
  std::vector<BitmapEdit> edits = {add_bitmap("b0"), add_bitmap("off"),
                                   bitmap_edit(Action::kDisable, "off")};
  std::unique_ptr<SharedStorage> fourth = std::move(open().front());
  co_await edit_test_bitmaps(world, std::move(fourth), edits);
}

Task<void> do_work(const World& world, Plan plan, std::unique_ptr<SharedStorage> storage) {
  std::vector<bool> touched(kGranules);
  std::vector<BitmapEdit> edits;
  switch (plan.work) {
    case Work::kWrite:
      co_await change_image_at_random(world, plan.image, std::move(storage), plan.seed + 2, 6,
                                      touched);
      break;
    case Work::kEdit: {
      BitmapEdit merge = bitmap_edit(Action::kMerge, "b0");
      merge.source = "off";
      edits = {add_bitmap("b1"), merge, bitmap_edit(Action::kRemove, "off")};
      co_await edit_test_bitmaps(world, std::move(storage), edits);
      break;
    }
    case Work::kRemoveAll:
      edits = {bitmap_edit(Action::kRemove, "b0"), bitmap_edit(Action::kRemove, "off")};
      co_await edit_test_bitmaps(world, std::move(storage), edits);
      break;
    case Work::kGrow:
      co_await grow(world, std::move(storage));
      break;
    case Work::kApply:
      co_await take_snapshot(world, std::move(storage), SnapshotEdit::Action::kApply);
      break;
  }
}

std::set<std::string> names_of(const SeenBitmaps& seen) {
  std::set<std::string> names(seen.unusable.begin(), seen.unusable.end());
  for (const auto& [name, dirty] : seen.dirty) names.insert(name);
  return names;
}

void expect_right_bitmaps(const Plan& plan, const SeenBitmaps& seen, const Content& before,
                          const Content& after) {
  const std::set<std::string> names = names_of(seen);
  const std::set<std::string> old_names = {"b0", "off"};
  std::set<std::string> new_names = old_names;
  if (plan.work == Work::kEdit) new_names = {"b0", "b1"};
  if (plan.work == Work::kRemoveAll) new_names.clear();
  EXPECT_TRUE(names == old_names || names == new_names) << names.size() << " bitmaps";
  const bool is_edit = plan.work == Work::kEdit || plan.work == Work::kRemoveAll;
  EXPECT_TRUE(!is_edit || seen.unusable.empty());
  for (const auto& [name, dirty] : seen.dirty) {
    if (name == "b0") expect_covered(dirty, before, after, kTestGranularity);
  }
}

Task<void> verify_image(const World& world, Plan plan, const sim::OpenStorages& open,
                        const Content& before) {
  std::unique_ptr<SharedStorage> checked = std::move(open().front());
  const bool is_change_of_whole = plan.work == Work::kGrow || plan.work == Work::kApply;
  if (is_change_of_whole) {
    co_await expect_permitted_damage(world, std::move(checked));
  } else {
    co_await check_test_image(world, plan.image, std::move(checked));
  }
  std::unique_ptr<SharedStorage> read = std::move(open().front());
  const Content after = co_await read_content(world, std::move(read), "");
  std::unique_ptr<SharedStorage> looked_at = std::move(open().front());
  const SeenBitmaps seen = co_await read_bitmaps(world, std::move(looked_at));
  expect_right_bitmaps(plan, seen, before, after);
  // What comes next goes on from there.
  std::vector<bool> touched(after.size() / kTestGranularity);
  std::unique_ptr<SharedStorage> changed = std::move(open().front());
  co_await change_image_at_random(world, plan.image, std::move(changed), plan.seed + 3, 2, touched);
  std::unique_ptr<SharedStorage> read_again = std::move(open().front());
  const Content later = co_await read_content(world, std::move(read_again), "");
  std::unique_ptr<SharedStorage> again = std::move(open().front());
  const SeenBitmaps seen_later = co_await read_bitmaps(world, std::move(again));
  EXPECT_EQ(seen_later.unusable, seen.unusable);
  expect_right_bitmaps(plan, seen_later, before, later);
  std::unique_ptr<SharedStorage> last = std::move(open().front());
  co_await check_test_image(world, plan.image, std::move(last));
}

class BitmapCrash final : public sim::CrashScenario {
 public:
  explicit BitmapCrash(Plan plan) : plan_(plan) {}

  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    return prepare_and_read(world, open);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    return do_work(world, plan_, std::move(open().front()));
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    return verify_image(world, plan_, open, before_);
  }

 private:
  Task<void> prepare_and_read(const World& world, const sim::OpenStorages& open) {
    co_await prepare_image(world, plan_, open);
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    before_ = co_await read_content(world, std::move(storage), "");
  }

  const Plan plan_;
  Content before_;
};

TEST(BitmapCrashTest, ABitmapThatCountsMissesNothing) {
  for (Work work : kAllWorks) {
    sim::for_each_seed(6, [work](uint64_t seed) {
      BitmapCrash scenario(drawn_plan(work, seed));
      sim::CrashSweepOptions options;
      options.shards = work == Work::kWrite ? 1 + seed % 3 : 1;
      options.points = 40;
      EXPECT_GT(run_crash_sweep(scenario, seed, options), 0u);
    });
  }
}

// Whether a failure was injected into the work.
bool run_work_with_fault(Plan plan, uint64_t n) {
  sim::SimWorld world(plan.seed, 2);
  sim::SimDisk disk(sim::SimDiskOptions::file(), plan.seed);
  const sim::OpenStorages open = [&disk] {
    std::vector<std::unique_ptr<SharedStorage>> storages;
    storages.push_back(storage_on(disk));
    return storages;
  };
  auto prepare = [&](Shard&) { return prepare_image(world.world(), plan, open); };
  EXPECT_TRUE(world.run(prepare).ok());
  auto read = [&](Shard&) { return read_content(world.world(), storage_on(disk), ""); };
  const Content before = world.run(read).value();
  sim::SimFaults faults;
  faults.fail_at = n;
  disk.set_faults(&faults);
  auto work = [&](Shard&) { return do_work(world.world(), plan, storage_on(disk)); };
  const Result<void> done = world.run(work);
  disk.set_faults(nullptr);
  if (!done.ok()) {
    EXPECT_EQ(done.error().errno_value, EIO);
  }
  if (faults.failed == 0) {
    EXPECT_TRUE(done.ok());
  }
  auto verify = [&](Shard&) { return verify_image(world.world(), plan, open, before); };
  EXPECT_TRUE(world.run(verify).ok());
  return faults.failed != 0;
}

TEST(BitmapFaultTest, AfterAnyFailureABitmapThatCountsMissesNothing) {
  for (Work work : kAllWorks) {
    for (uint64_t seed : {2, 3}) {
      auto run = [&](uint64_t n) { return run_work_with_fault(drawn_plan(work, seed), n); };
      EXPECT_GT(sim::sweep_faults(2000, run), 10u);
    }
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
