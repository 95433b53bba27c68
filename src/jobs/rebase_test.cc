// SPDX-License-Identifier: Apache-2.0
// RebaseJob on simulated shards: over the new backing image the overlay reads as it did over the
// old one, whatever their sizes and contents; a failure or a cancellation changes nothing that can
// be read.
#include "jobs/rebase.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "codec/zero_detect.h"
#include "nodes/mem.h"
#include "qcow2/admin.h"
#include "qcow2/describe.h"
#include "qcow2/edit/edit_fixture_test.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"
#include "sim/seeds.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using qcow2::Content;
using qcow2::TestImage;

constexpr ByteCount kDiskSize((512 << 10) + 1536);
constexpr size_t kBlock = 512;

// A raw disk with content; no bytes: there is none.
std::shared_ptr<DeviceNode> raw_disk(Diagnostics& diagnostics, const Content& content) {
  if (content.empty()) return nullptr;
  const uint32_t id = diagnostics.add_node("base.raw");
  auto memory = std::make_shared<MemContent>(ByteCount(content.size()));
  for (size_t at = 0; at < content.size(); at += kBlock) {
    const Bytes block = Bytes(content).subspan(at, std::min(kBlock, content.size() - at));
    if (!is_zero(block)) memory->memory().write(HostOffset(at), block);
  }
  auto node = std::make_unique<MemNode>("base.raw", id, memory);
  auto storage = std::make_unique<SharedStorage>(std::move(node));
  auto format =
      std::make_unique<RawNode>(std::move(storage), ByteCount(0), ByteCount(content.size()));
  return std::make_shared<DeviceNode>("base.raw", id, std::move(format), nullptr);
}

// Random content with stretches of zeros, and some of `like` in its place.
Content drawn_content(Random& random, uint64_t bytes, const Content& like) {
  Content content(bytes);
  for (uint64_t at = 0; at < bytes;) {
    const uint64_t length = std::min<uint64_t>(kBlock * (1 + random.below(200)), bytes - at);
    const uint64_t kind = random.below(3);
    for (uint64_t i = at; i < at + length; ++i) {
      if (kind == 1) content[i] = static_cast<std::byte>(random.next());
      if (kind == 2 && i < like.size()) content[i] = like[i];
    }
    at += length;
  }
  return content;
}

struct Scenario {
  TestImage image;
  Content old_below, new_below;
  RebaseOptions options;

  explicit Scenario(uint64_t seed) {
    Random random(seed);
    image = qcow2::drawn_edited_image(seed);
    // Pieces are smaller than the largest clusters, and end in the middle of extended ones.
    image.cluster_bits = static_cast<uint32_t>(9 + random.below(13));
    const bool can_extend = image.version >= 3 && image.cluster_bits >= 14;
    image.extended_l2 = can_extend && random.chance(70);
    const uint64_t sizes[] = {0, (100 << 10) + kBlock, kDiskSize.value(), 700 << 10};
    old_below = drawn_content(random, sizes[random.below(4)], Content());
    new_below = drawn_content(random, sizes[random.below(4)], old_below);
    image.backing_bytes = old_below.size();
    options.compress = seed % 4 == 0;
  }
};

Task<std::shared_ptr<DeviceNode>> overlay_over(const World& world,
                                               std::unique_ptr<SharedStorage> storage,
                                               const Content& below, bool read_only) {
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  OpenMode mode;
  mode.read_only = read_only;
  mode.keep_zeroes = true;
  FormatOpening opening{world, graph, std::move(storage), "", mode, Options()};
  const FormatDriver driver = qcow2_driver();
  OpenedFormat opened = co_await driver.open(std::move(opening));
  co_return std::make_shared<DeviceNode>("disk.qcow2", 1, std::move(opened.node),
                                         raw_disk(world.diagnostics, below));
}

Task<std::shared_ptr<DeviceNode>> open_overlay(const World& world, sim::SimDisk& disk,
                                               const Content& below, bool read_only) {
  return overlay_over(world, qcow2::storage_on(disk), below, read_only);
}

Task<void> write_some(DeviceQueue& queue, uint64_t seed) {
  Content content(kDiskSize.value());
  co_await qcow2::change_content(queue, seed, content);
}

Task<void> make_overlay(const World& world, const Scenario& scenario, sim::SimDisk& disk,
                        uint64_t seed) {
  std::unique_ptr<SharedStorage> storage = qcow2::storage_on(disk);
  co_await qcow2::create_test_image(scenario.image, *storage, kDiskSize);
  co_await storage->node->close();
  std::shared_ptr<DeviceNode> device =
      co_await open_overlay(world, disk, scenario.old_below, false);
  std::unique_ptr<DeviceQueue> queue = co_await device->open_queue(Shard::current());
  Result<void> written = co_await write_some(*queue, seed).result();
  queue.reset();
  co_await device->close();
  co_await std::move(written);
}

Task<Content> read_and_close(DeviceNode& device) {
  std::unique_ptr<DeviceQueue> queue = co_await device.open_queue(Shard::current());
  Content content(kDiskSize.value());
  Result<void> read =
      co_await queue->read(GuestOffset(0), MutableBuffers(MutableBytes(content))).result();
  queue.reset();
  co_await device.close();
  co_await std::move(read);
  co_return std::move(content);
}

Task<Content> content_over(const World& world, sim::SimDisk& disk, const Content& below) {
  std::shared_ptr<DeviceNode> device = co_await open_overlay(world, disk, below, true);
  co_return co_await read_and_close(*device);
}

Task<void> rebase_overlay(const World& world, const Scenario& scenario, sim::SimDisk& disk,
                          CancelToken cancel) {
  std::shared_ptr<DeviceNode> overlay =
      co_await open_overlay(world, disk, scenario.old_below, false);
  std::shared_ptr<DeviceNode> below = raw_disk(world.diagnostics, scenario.new_below);
  RebaseJob job(world, *overlay, below.get(), scenario.options);
  Result<void> rebased = co_await job.run(cancel).result();
  if (rebased.ok()) {
    EXPECT_EQ(job.done_bytes(), job.total_bytes());
  }
  if (below) co_await below->close();
  Result<void> closed = co_await overlay->close().result();
  co_await std::move(rebased);
  co_await std::move(closed);
}

// One overlay in a world of its own.
class OneOverlay {
 public:
  OneOverlay(uint64_t seed, uint32_t shards) : world_(seed, shards), scenario_(seed), seed_(seed) {
    world_.diagnostics().add_node("disk.qcow2");
    auto make = [&](Shard&) { return make_overlay(world_.world(), scenario_, disk_, seed_); };
    EXPECT_TRUE(world_.run(make).ok());
    before_ = content_over_old();
  }
  Result<void> rebase(CancelToken cancel) {
    auto work = [&](Shard&) { return rebase_overlay(world_.world(), scenario_, disk_, cancel); };
    return world_.run(work);
  }
  void expect_unchanged_over_old() { EXPECT_TRUE(content_over_old() == before_); }
  void expect_the_same_over_new() { EXPECT_TRUE(read(scenario_.new_below) == before_); }
  void expect_sound() {
    auto check = [&](Shard&) {
      return qcow2::check_test_image(world_.world(), scenario_.image, qcow2::storage_on(disk_));
    };
    EXPECT_TRUE(world_.run(check).ok());
  }
  sim::SimDisk& disk() { return disk_; }

 private:
  Content content_over_old() { return read(scenario_.old_below); }
  Content read(const Content& below) {
    auto look = [&](Shard&) { return content_over(world_.world(), disk_, below); };
    return world_.run(look).value();
  }

  sim::SimWorld world_;
  const Scenario scenario_;
  const uint64_t seed_;
  sim::SimDisk disk_{sim::SimDiskOptions::file(), 3};
  Content before_;
};

TEST(RebaseTest, TheDiskReadsTheSameOverTheNewImage) {
  sim::for_each_seed(120, [](uint64_t seed) {
    OneOverlay run(seed, 1 + seed % 3);
    CancelSource never;
    ASSERT_TRUE(run.rebase(never.token()).ok());
    run.expect_the_same_over_new();
    run.expect_unchanged_over_old();
    run.expect_sound();
  });
}

// --- crashes: what is recorded is always the one over which the disk reads as it did

constexpr const char* kNewName = "new.raw";

Task<void> rebase_and_rename(const World& world, RebaseJob& job, DeviceNode& overlay) {
  CancelSource never;
  co_await job.run(never.token());
  std::unique_ptr<FormatAdmin> admin = make_qcow2_admin();
  co_await admin->change_backing(world, overlay.format(), kNewName, "raw");
}

class RebaseCrash final : public sim::CrashScenario {
 public:
  explicit RebaseCrash(uint64_t seed) : scenario_(seed), seed_(seed) {}

  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    co_await make_overlay_on(world, open);
    before_ = co_await content_on(world, open, scenario_.old_below);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    return rebase_on(world, open);
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    return expect_the_same(world, open);
  }

 private:
  Task<void> make_overlay_on(const World& world, const sim::OpenStorages& open) {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    co_await qcow2::create_test_image(scenario_.image, *storage, kDiskSize);
    co_await storage->node->close();
    std::unique_ptr<SharedStorage> again = std::move(open().front());
    std::shared_ptr<DeviceNode> device =
        co_await overlay_over(world, std::move(again), scenario_.old_below, false);
    std::unique_ptr<DeviceQueue> queue = co_await device->open_queue(Shard::current());
    co_await write_some(*queue, seed_);
    queue.reset();
    co_await device->close();
  }
  Task<void> rebase_on(const World& world, const sim::OpenStorages& open) {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    std::shared_ptr<DeviceNode> overlay =
        co_await overlay_over(world, std::move(storage), scenario_.old_below, false);
    std::shared_ptr<DeviceNode> below = raw_disk(world.diagnostics, scenario_.new_below);
    RebaseJob job(world, *overlay, below.get(), scenario_.options);
    Result<void> rebased = co_await rebase_and_rename(world, job, *overlay).result();
    if (below) co_await below->close();
    Result<void> closed = co_await overlay->close().result();
    co_await std::move(rebased);
    co_await std::move(closed);
  }
  Task<Content> content_on(const World& world, const sim::OpenStorages& open,
                           const Content& below) {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    std::shared_ptr<DeviceNode> device =
        co_await overlay_over(world, std::move(storage), below, true);
    co_return co_await read_and_close(*device);
  }
  Task<void> expect_the_same(const World& world, const sim::OpenStorages& open) {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    const ImageDescription description = co_await qcow2::describe_image(world, *storage);
    co_await storage->node->close();
    const bool is_new = description.backing_name == kNewName;
    const Content& below = is_new ? scenario_.new_below : scenario_.old_below;
    const Content content = co_await content_on(world, open, below);
    EXPECT_TRUE(content == before_) << (is_new ? "over the new image" : "over the old one");
    ++(is_new ? done : not_done);
  }

  const Scenario scenario_;
  const uint64_t seed_;
  Content before_;

 public:
  uint64_t done = 0, not_done = 0;
};

TEST(RebaseCrashTest, TheRecordedImageIsOneOverWhichTheDiskReadsAsItDid) {
  uint64_t done = 0, not_done = 0;
  sim::for_each_seed(16, [&](uint64_t seed) {
    RebaseCrash scenario(seed);
    sim::CrashSweepOptions options;
    options.shards = 1 + seed % 2;
    options.points = 40;
    EXPECT_GT(run_crash_sweep(scenario, seed, options), 0u);
    done += scenario.done;
    not_done += scenario.not_done;
  });
  EXPECT_GT(done, 0u);
  EXPECT_GT(not_done, 0u);
}

TEST(RebaseTest, ACancelledJobChangesNothingThatCanBeRead) {
  OneOverlay run(5, 2);
  CancelSource now;
  now.cancel();
  const Result<void> rebased = run.rebase(now.token());
  ASSERT_FALSE(rebased.ok());
  EXPECT_EQ(rebased.error().kind, ErrorKind::kCancelled);
  run.expect_unchanged_over_old();
}

TEST(RebaseTest, EveryFailureIsToldAndChangesNothingThatCanBeRead) {
  for (uint64_t seed : {2u, 11u}) {
    auto run_with_fault = [seed](uint64_t n) {
      OneOverlay run(seed, 2);
      sim::SimFaults faults;
      faults.fail_at = n;
      run.disk().set_faults(&faults);
      CancelSource never;
      const Result<void> rebased = run.rebase(never.token());
      run.disk().set_faults(nullptr);
      if (!rebased.ok()) {
        EXPECT_EQ(rebased.error().errno_value, EIO);
      }
      run.expect_unchanged_over_old();
      if (rebased.ok()) run.expect_the_same_over_new();
      return faults.failed != 0;
    };
    EXPECT_GT(sim::sweep_faults(1000, run_with_fault), 5u);
  }
}

}  // namespace
}  // namespace ringdisk
