// SPDX-License-Identifier: Apache-2.0
// Another size and an emptied image on the simulator: what they do, the power failing anywhere in
// them, every request of them failing once.
#include <gtest/gtest.h>

#include "qcow2/edit_fixture_test.h"
#include "qcow2/empty.h"
#include "qcow2/resize.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

// Larger than what the L1 table of small clusters has room for.
constexpr ByteCount kLargerSize(8 << 20);

enum class Change : uint8_t { kGrow, kEmpty };

Task<void> change_image(const World& world, std::unique_ptr<SharedStorage> storage, Change change) {
  world.diagnostics.add_node("disk.qcow2");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  if (change == Change::kGrow) {
    co_await resize_image(graph, std::move(storage), kLargerSize);
  } else {
    co_await empty_image(graph, std::move(storage));
  }
}

Content content_after(Change change, Content content) {
  if (change == Change::kEmpty) content.assign(content.size(), std::byte{0});
  if (change == Change::kGrow) content.resize(kLargerSize.value());
  return content;
}

TestImage small_image(uint64_t seed) {
  TestImage image = drawn_edited_image(seed);
  image.cluster_bits = 9 + seed % 4;
  return image;
}

Task<void> prepare_image(const World& world, TestImage image, const sim::OpenStorages& open,
                         uint64_t seed, Content& content) {
  std::unique_ptr<SharedStorage> storage = std::move(open().front());
  co_await create_test_image(image, *storage, kEditedSize);
  co_await storage->node->close();
  content.assign(kEditedSize.value(), std::byte{0});
  std::unique_ptr<SharedStorage> again = std::move(open().front());
  co_await write_image(world, image, std::move(again), seed, content);
}

class EditCrash final : public sim::CrashScenario {
 public:
  EditCrash(TestImage image, Change change, uint64_t seed)
      : image_(image), change_(change), seed_(seed) {}

  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    return prepare_image(world, image_, open, seed_, content_);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    return change_image(world, std::move(open().front()), change_);
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    return verify_all(world, open);
  }

 private:
  Task<void> verify_all(const World& world, const sim::OpenStorages& open) {
    std::unique_ptr<SharedStorage> first = std::move(open().front());
    co_await expect_permitted_damage(world, image_, std::move(first));
    co_await expect_contents(world, open);
    co_await expect_repaired_at_open(world, image_, open);
    co_await expect_contents(world, open);
  }

  Task<void> expect_contents(const World& world, const sim::OpenStorages& open) {
    const Content after = content_after(change_, content_);
    std::unique_ptr<SharedStorage> second = std::move(open().front());
    co_await expect_one_of(world, std::move(second), "", content_, after);
  }

  const TestImage image_;
  const Change change_;
  const uint64_t seed_;
  Content content_;
};

TEST(EditCrashTest, ACrashInAChangeLeavesItDoneOrNotDone) {
  for (Change change : {Change::kGrow, Change::kEmpty}) {
    sim::for_each_seed(5, [change](uint64_t seed) {
      EditCrash scenario(small_image(seed), change, seed);
      sim::CrashSweepOptions options;
      options.shards = 1;
      options.points = 40;
      EXPECT_GT(run_crash_sweep(scenario, seed, options), 0u);
    });
  }
}

// Whether a failure was injected into the change.
bool run_change_with_fault(TestImage image, Change change, uint64_t seed, uint64_t n) {
  sim::SimWorld world(seed, 1);
  sim::SimDisk disk(sim::SimDiskOptions::file(), seed);
  Content content;
  const sim::OpenStorages open = [&disk] {
    std::vector<std::unique_ptr<SharedStorage>> storages;
    storages.push_back(storage_on(disk));
    return storages;
  };
  auto prepare = [&](Shard&) { return prepare_image(world.world(), image, open, seed, content); };
  EXPECT_TRUE(world.run(prepare).ok());
  sim::SimFaults faults;
  faults.fail_at = n;
  disk.set_faults(&faults);
  auto work = [&](Shard&) { return change_image(world.world(), storage_on(disk), change); };
  const Result<void> changed = world.run(work);
  disk.set_faults(nullptr);
  if (!changed.ok()) {
    EXPECT_EQ(changed.error().errno_value, EIO);
  }
  if (faults.failed == 0) {
    EXPECT_TRUE(changed.ok());
  }
  auto verify = [&](Shard&) {
    return expect_permitted_damage(world.world(), image, storage_on(disk));
  };
  EXPECT_TRUE(world.run(verify).ok());
  const Content after = content_after(change, content);
  const Content& untouched = changed.ok() ? after : content;
  auto look = [&](Shard&) {
    return expect_one_of(world.world(), storage_on(disk), "", untouched, after);
  };
  EXPECT_TRUE(world.run(look).ok());
  return faults.failed != 0;
}

TEST(EditFaultTest, EveryFailureIsToldAndLosesNothing) {
  for (Change change : {Change::kGrow, Change::kEmpty}) {
    auto run = [&](uint64_t n) { return run_change_with_fault(small_image(2), change, 2, n); };
    EXPECT_GT(sim::sweep_faults(2000, run), 10u);
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
