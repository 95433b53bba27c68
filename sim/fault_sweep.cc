// SPDX-License-Identifier: Apache-2.0
// One run of the device fault sweep: work with a failing disk, then look with a sound one.
#include "sim/fault_sweep.h"

#include <utility>

#include "runtime/shard.h"
#include "sim/model_run.h"
#include "sim/sim_world.h"

namespace ringdisk::sim {
namespace {

class FaultRun {
 public:
  FaultRun(const ImageFormat& format, uint64_t seed, const DeviceFaultOptions& options)
      : format_(format),
        options_(options),
        world_(seed, options.shards),
        disk_(options.disk, world_.draw_seed(), &log_, &faults_),
        model_(seed, true, format.initial),
        workload_(with_errors(options.workload), world_.draw_seed(), model_, &log_) {
    model_.set_discard_unit(format.discard_unit, options.size.value());
  }

  bool run(uint64_t n) {
    auto prepare = [this](Shard&) {
      return create_image(world_.world(), format_, disk_, options_.size);
    };
    EXPECT_TRUE(world_.run(prepare).ok());
    faults_.requests = 0;
    faults_.only = options_.only;
    faults_.fail_at = n;
    faults_.fail_all_after = options_.fail_all_after;
    faults_.errno_value = options_.errno_value;
    auto work = [this](Shard&) { return this->work(); };
    Result<void> worked = world_.run(work);
    bool touched = faults_.failed != 0;
    judge(worked, touched);
    faults_.fail_at.reset();
    for (uint64_t subset : {uint64_t{0}, uint64_t{1}, 2 + n}) look_after_crash(subset);
    return touched;
  }

 private:
  static WorkloadOptions with_errors(WorkloadOptions workload) {
    workload.errors_allowed = true;
    return workload;
  }

  Task<void> work() {
    std::unique_ptr<SharedStorage> storage = storage_of(disk_);
    std::shared_ptr<DeviceNode> node =
        co_await format_.open(world_.world(), std::move(storage), false);
    Result<void> worked = co_await work_open(*node).result();
    Result<void> closed = co_await node->close().result();
    co_await std::move(worked);
    co_await std::move(closed);
  }

  Task<void> work_open(DeviceNode& node) {
    co_await workload_.run(world_.world(), node);
    if (!options_.fail_all_after) co_await workload_.verify(node);
  }

  // Errors are those that were injected, and there are none without.
  void judge(const Result<void>& worked, bool touched) {
    if (!worked.ok()) {
      EXPECT_TRUE(touched) << world_.diagnostics().describe(worked.error());
      EXPECT_EQ(worked.error().errno_value, options_.errno_value);
    }
    if (workload_.errors() == 0) return;
    EXPECT_TRUE(touched) << world_.diagnostics().describe(workload_.first_error());
    EXPECT_EQ(workload_.first_error().errno_value, options_.errno_value)
        << "the errno was lost in " << workload_.first_error().operation;
  }

  void look_after_crash(uint64_t subset_seed) {
    SCOPED_TRACE(::testing::Message() << "crash at the end, subset seed " << subset_seed);
    SimDisk crashed(disk_, log_.events(), subset_seed);
    auto look = [this, &crashed](Shard&) { return verify(crashed); };
    Result<void> looked = world_.run(look);
    EXPECT_TRUE(looked.ok()) << world_.diagnostics().describe(looked.error());
  }

  Task<void> verify(SimDisk& crashed) {
    if (format_.check) co_await format_.check(world_.world(), storage_of(crashed));
    std::shared_ptr<DeviceNode> node =
        co_await format_.open(world_.world(), storage_of(crashed), false);
    Result<void> verified = co_await workload_.verify_crashed(*node, log_.events()).result();
    co_await node->close();
    co_await std::move(verified);
  }

  const ImageFormat& format_;
  const DeviceFaultOptions& options_;
  SimWorld world_;
  CrashLog log_;
  SimFaults faults_;
  SimDisk disk_;
  ModelDisk model_;
  Workload workload_;
};

}  // namespace

uint64_t run_device_fault_sweep(const ImageFormat& format, uint64_t seed,
                                const DeviceFaultOptions& options) {
  constexpr uint64_t kRunsMax = 100'000;
  uint64_t first = Random(seed).below(options.step);
  return sweep_faults(kRunsMax, [&](uint64_t run) {
    FaultRun one(format, seed, options);
    return one.run(first + run * options.step);
  });
}

}  // namespace ringdisk::sim
