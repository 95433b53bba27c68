// SPDX-License-Identifier: Apache-2.0
// Running once, crashing often.
#include "sim/crash_sweep.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/shard.h"
#include "sim/model_run.h"
#include "sim/sim_world.h"

namespace ringdisk::sim {
namespace {

using Disks = std::vector<std::unique_ptr<SimDisk>>;

// Of the process, as its seeds are; tests run on one thread.
uint64_t points_tried = 0;

OpenStorages opener_of(const Disks& disks) {
  return [&disks] {
    std::vector<std::unique_ptr<SharedStorage>> storages;
    for (const auto& disk : disks) storages.push_back(storage_of(*disk));
    return storages;
  };
}

// Up to `points` of the events from `first` to `last`, in order.
std::vector<uint64_t> draw_points(uint64_t first, uint64_t last, uint64_t points, Random& random) {
  std::vector<uint64_t> drawn;
  uint64_t left = last - first + 1;
  uint64_t wanted = std::min(points, left);
  for (uint64_t event = first; wanted != 0; ++event, --left) {
    if (random.below(left) >= wanted) continue;
    drawn.push_back(event);
    --wanted;
  }
  return drawn;
}

class Sweep {
 public:
  Sweep(CrashScenario& scenario, uint64_t seed, const CrashSweepOptions& options)
      : scenario_(scenario), seed_(seed), options_(options), random_(mix_seed(seed, 1)) {}

  uint64_t run() {
    uint64_t first = prepare_and_work();
    if (::testing::Test::HasFailure()) return 0;
    uint64_t crashes = 0;
    for (uint64_t event : draw_points(first, log_.events(), options_.points, random_)) {
      uint64_t subsets = log_.undecided_at(event) == 0 ? 1 : options_.subsets;
      for (uint64_t subset = 0; subset < subsets; ++subset, ++crashes) {
        crash_and_verify(event, subset < 2 ? subset : random_.next());
        if (::testing::Test::HasFailure()) return crashes;
      }
    }
    return crashes;
  }

 private:
  // Gives the first event after which the power may fail.
  uint64_t prepare_and_work() {
    SimWorld world(seed_, options_.shards);
    for (const SimDiskOptions& options : options_.disks) {
      disks_.push_back(std::make_unique<SimDisk>(options, world.draw_seed(), &log_));
    }
    OpenStorages open = opener_of(disks_);
    auto prepare = [&](Shard&) { return scenario_.prepare(world.world(), open); };
    Result<void> prepared = world.run(prepare);
    EXPECT_TRUE(prepared.ok()) << "preparing: " << world.diagnostics().describe(prepared.error());
    auto flush = [&](Shard& shard) { return flush_all(shard); };
    EXPECT_TRUE(world.run(flush).ok());
    uint64_t first = log_.events();
    auto work = [&](Shard&) { return scenario_.work(world.world(), open, log_); };
    Result<void> worked = world.run(work);
    EXPECT_TRUE(worked.ok()) << "working: " << world.diagnostics().describe(worked.error());
    return first;
  }

  Task<void> flush_all(Shard& shard) {
    for (const auto& disk : disks_) {
      std::unique_ptr<SharedStorage> storage = storage_of(*disk);
      std::unique_ptr<StorageQueue> queue = co_await storage->node->open_queue(shard);
      co_await queue->flush();
      queue.reset();
      co_await storage->node->close();
    }
  }

  void crash_and_verify(uint64_t event, uint64_t subset_seed) {
    SCOPED_TRACE(::testing::Message() << "crash after event " << event << " of " << log_.events()
                                      << ", subset seed " << subset_seed);
    SimWorld world(mix_seed(seed_, event), options_.shards);
    note_seed(seed_);
    Disks crashed;
    for (const auto& disk : disks_) {
      crashed.push_back(std::make_unique<SimDisk>(*disk, event, subset_seed));
    }
    OpenStorages open = opener_of(crashed);
    auto verify = [&](Shard&) { return scenario_.verify(world.world(), open, event); };
    Result<void> verified = world.run(verify);
    EXPECT_TRUE(verified.ok()) << "after the crash: "
                               << world.diagnostics().describe(verified.error());
  }

  CrashScenario& scenario_;
  const uint64_t seed_;
  const CrashSweepOptions& options_;
  Random random_;
  CrashLog log_;
  Disks disks_;
};

// Random requests to one disk of a format.
class DeviceScenario final : public CrashScenario {
 public:
  DeviceScenario(const ImageFormat& format, uint64_t seed, const DeviceCrashOptions& options)
      : format_(format), seed_(seed), options_(options), model_(seed, true, format.initial) {
    model_.set_discard_unit(format.discard_unit, options.size.value());
  }

  Task<void> prepare(const World& world, const OpenStorages& open) override {
    std::unique_ptr<SharedStorage> storage = std::move(open()[0]);
    Result<void> created = co_await format_.create(world, *storage, options_.size).result();
    co_await storage->node->close();
    co_await std::move(created);
  }

  Task<void> work(const World& world, const OpenStorages& open, const CrashLog& log) override {
    std::shared_ptr<DeviceNode> node = co_await open_device(world, open);
    Workload workload(options_.workload, mix_seed(seed_, 2), model_, &log);
    Result<void> worked = co_await workload.run(world, *node).result();
    co_await node->close();
    co_await std::move(worked);
  }

  Task<void> verify(const World& world, const OpenStorages& open, uint64_t event) override {
    co_await check(world, open);
    std::shared_ptr<DeviceNode> node = co_await open_device(world, open);
    EXPECT_EQ(node->size().value(), options_.size.value()) << "the disk has another size";
    Result<void> verified;
    if (node->size() == options_.size) {
      verified = co_await verify_open(world, *node, event).result();
    }
    co_await node->close();
    co_await std::move(verified);
    co_await check(world, open);
  }

 private:
  Task<std::shared_ptr<DeviceNode>> open_device(const World& world, const OpenStorages& open) {
    std::vector<std::unique_ptr<SharedStorage>> storages = open();
    if (format_.open_all) co_return co_await format_.open_all(world, std::move(storages)).result();
    co_return co_await format_.open(world, std::move(storages[0]), false).result();
  }

  Task<void> check(const World& world, const OpenStorages& open) {
    if (!format_.check) co_return;
    std::unique_ptr<SharedStorage> storage = std::move(open()[0]);
    co_await format_.check(world, std::move(storage));
  }

  Task<void> verify_open(const World& world, DeviceNode& node, uint64_t event) {
    Workload reader(options_.workload, mix_seed(seed_, event), model_, nullptr);
    co_await reader.verify_crashed(node, event);
    if (Random(mix_seed(seed_, ++verified_)).chance(25)) co_await work_on(world, node);
  }

  // More requests: what is there now must stay, whatever the crash has left in the tables.
  Task<void> work_on(const World& world, DeviceNode& node) {
    std::vector<std::byte> before(node.size().value());
    std::unique_ptr<DeviceQueue> queue = co_await node.open_queue(Shard::current());
    co_await queue->read(GuestOffset(0), MutableBuffers(MutableBytes(before)));
    queue.reset();
    auto initial = [&before](uint64_t sector, Sector& content) {
      uint64_t offset = sector * kSectorBytes;
      uint64_t there = std::min(kSectorBytes, before.size() - offset);
      copy_bytes(Bytes(before).subspan(offset, there), MutableBytes(content).first(there));
    };
    ModelDisk model(mix_seed(seed_, 3), false, initial);
    model.set_discard_unit(format_.discard_unit, before.size());
    WorkloadOptions few = options_.workload;
    few.operations = 24;
    Workload workload(few, mix_seed(seed_, verified_), model, nullptr);
    co_await workload.run(world, node);
    co_await workload.verify(node);
  }

  const ImageFormat& format_;
  const uint64_t seed_;
  const DeviceCrashOptions& options_;
  ModelDisk model_;
  uint64_t verified_ = 0;
};

}  // namespace

uint64_t crash_points_tried() { return points_tried; }

uint64_t points_in_this_build(uint64_t points) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return points / 10;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return points / 10;
#endif
#endif
  return points;
}

uint64_t run_crash_sweep(CrashScenario& scenario, uint64_t seed, const CrashSweepOptions& options) {
  const uint64_t points = Sweep(scenario, seed, options).run();
  points_tried += points;
  return points;
}

uint64_t run_device_crash_sweep(const ImageFormat& format, uint64_t seed,
                                const DeviceCrashOptions& options) {
  DeviceScenario scenario(format, seed, options);
  return run_crash_sweep(scenario, seed, options.sweep);
}

}  // namespace ringdisk::sim
