// SPDX-License-Identifier: Apache-2.0
// The power failing anywhere in everything that happens to an image in its life: requests from
// several shards (allocation, overwriting, discards, zeroes, detected zeros, compressed clusters,
// flushes, FUA), and between them snapshots taken, applied and deleted, a larger size, bitmaps
// added, cleared and removed, compaction; with the guest's data in the image or in a file of its
// own. After each crash the image opens, its check finds leaks at most (within a snapshot edit what
// edit_fixture_test.h permits, which the open repairs), every flushed byte is there, every snapshot
// holds what the disk was, and a bitmap that counts has a bit for whatever differs from what the
// disk was when it began; it may be inconsistent only where its disk was being written to.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/compact/compact_fixture_test.h"
#include "qcow2/data_file_fixture_test.h"
#include "qcow2/edit/resize.h"
#include "sim/crash_sweep.h"
#include "sim/expected_failures.h"

namespace ringdisk::qcow2 {
namespace {

using Action = SnapshotEdit::Action;

constexpr uint64_t kNever = ~uint64_t{0};
constexpr int kSessions = 4;

// What was done to a snapshot, by events of the log.
struct SnapshotLife {
  Content content;
  uint64_t create_begun = 0, created = kNever;
  uint64_t delete_begun = kNever, deleted = kNever;

  bool must_be_there(uint64_t event) const { return created <= event && delete_begun >= event; }
  bool may_be_there(uint64_t event) const { return create_begun <= event && deleted > event; }
};

struct EventRange {
  uint64_t begin, end;
  bool contains(uint64_t event) const { return begin <= event && event <= end; }
};
bool lies_in(const std::vector<EventRange>& ranges, uint64_t event) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [event](const EventRange& one) { return one.contains(event); });
}

// What was done to a bitmap, by events of the log.
struct BitmapLife {
  struct Base {
    uint64_t since;
    Content content;  // of the disk
  };
  uint64_t granularity = kTestGranularity;
  std::vector<Base> bases;  // from where it counts: added, then cleared
  uint64_t added = kNever, remove_begun = kNever, removed = kNever;

  bool must_be_there(uint64_t event) const { return added <= event && remove_begun >= event; }
  bool may_be_there(uint64_t event) const { return bases[0].since <= event && removed > event; }
  const Content& base_at(uint64_t event) const {
    size_t last = 0;
    while (last + 1 < bases.size() && bases[last + 1].since <= event) ++last;
    return bases[last].content;
  }
};

class MixedCrash final : public sim::CrashScenario {
 public:
  MixedCrash(TestImage image, sim::WorkloadOptions workload, uint64_t seed)
      : image_(image),
        workload_(workload),
        seed_(seed),
        random_(sim::mix_seed(seed, 7)),
        model_(seed, true, initial_of(image)) {}

  Task<void> prepare(const World&, const sim::OpenStorages& open) override {
    std::unique_ptr<SharedStorage> storage = first_of(open);
    co_await create_test_image(image_, *storage, size_);
    co_await storage->node->close();
  }

  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog& log) override {
    for (int session = 0; session < kSessions; ++session) {
      if (session == 0 && has_bitmaps()) co_await add_bitmap_now(world, open, log);
      co_await work_on_disk(world, open, log);
      co_await edit(world, open, log);
      co_await edit(world, open, log);
    }
  }

  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t event) override {
    std::unique_ptr<SharedStorage> first = first_of(open);
    if (lies_in(edits_, event)) {
      co_await expect_permitted_damage(world, std::move(first));
    } else {
      TestImage leaking = image_;
      leaking.leaks_allowed = true;
      co_await check_test_image(world, leaking, std::move(first));
    }
    co_await expect_repaired(world, open);
    co_await expect_disk(world, open, event);
    co_await expect_bitmaps(world, open, event);
    for (const auto& [name, life] : snapshots_) {
      co_await expect_snapshot(world, open, event, name, life);
    }
  }

 private:
  static sim::ModelDisk::Initial initial_of(const TestImage& image) {
    const Content content = initial_content(image, kEditedSize);
    return [content](uint64_t sector, sim::Sector& bytes) {
      bytes = sim::Sector();
      const uint64_t at = sector * sim::kSectorBytes;
      if (at >= content.size()) return;
      copy_bytes(Bytes(content).subspan(at, sim::kSectorBytes), MutableBytes(bytes));
    };
  }
  bool has_bitmaps() const { return image_.version >= 3; }
  // Snapshots and a data file exclude each other.
  bool has_snapshots() const { return image_.refcount_order >= 3 && !image_.has_data_file; }

  Task<void> work_on_disk(const World& world, const sim::OpenStorages& open,
                          const sim::CrashLog& log) {
    const std::shared_ptr<sim::SimDisk> backing = backing_of(image_);
    std::shared_ptr<DeviceNode> node = co_await open_image_on(world, image_, open, backing, false);
    sim::Workload workload(workload_, random_.next(), model_, &log);
    Result<void> worked = co_await workload.run(world, *node).result();
    co_await node->close();
    co_await std::move(worked);
  }

  Task<void> edit(const World& world, const sim::OpenStorages& open, const sim::CrashLog& log) {
    const uint64_t begun = log.events();
    switch (random_.below(has_bitmaps() ? 7 : 5)) {
      case 0:
        co_await create_snapshot(world, open, log);
        co_return;
      case 1:
        co_await remove_snapshot(world, open, log);
        co_return;
      case 2:
        co_await apply_snapshot(world, open, log);
        co_return;
      case 3:
        co_await grow(world, open);
        co_return;
      case 4:
        co_await compact(world, open);
        quiet_.push_back({begun, log.events()});
        co_return;
      default:
        co_await edit_bitmap(world, open, log);
        quiet_.push_back({begun, log.events()});
        co_return;
    }
  }

  // What was completed before is flushed by the edit.
  Task<void> create_snapshot(const World& world, const sim::OpenStorages& open,
                             const sim::CrashLog& log) {
    if (!has_snapshots()) co_return;
    const std::string name = "s" + std::to_string(++names_);
    SnapshotLife& life = snapshots_[name];
    life.content = co_await content_on(world, image_, open, backing_of(image_));
    life.create_begun = log.events();
    const uint64_t flush = model_.begin_flush(log.events());
    std::unique_ptr<SharedStorage> edited = std::move(open().front());
    co_await edit_test_snapshot(world, std::move(edited), Action::kCreate, name);
    life.created = log.events();
    model_.end_flush(flush, true, log.events());
    edits_.push_back({life.create_begun, life.created});
  }

  // One that is there; empty: there is none.
  std::string drawn_snapshot() {
    std::vector<std::string> names;
    for (const auto& [name, life] : snapshots_) {
      if (life.deleted == kNever) names.push_back(name);
    }
    return names.empty() ? "" : names[random_.below(names.size())];
  }

  Task<void> remove_snapshot(const World& world, const sim::OpenStorages& open,
                             const sim::CrashLog& log) {
    const std::string name = drawn_snapshot();
    if (name.empty()) co_return;
    SnapshotLife& life = snapshots_[name];
    life.delete_begun = log.events();
    std::unique_ptr<SharedStorage> edited = std::move(open().front());
    co_await edit_test_snapshot(world, std::move(edited), Action::kDelete, name);
    life.deleted = log.events();
    edits_.push_back({life.delete_begun, life.deleted});
  }

  // To the model a write of the whole disk.
  Task<void> apply_snapshot(const World& world, const sim::OpenStorages& open,
                            const sim::CrashLog& log) {
    const std::string name = drawn_snapshot();
    if (name.empty() || snapshots_[name].content.size() != size_.value()) co_return;
    const uint64_t begun = log.events();
    const uint64_t change = model_.begin_write(0, snapshots_[name].content, false, begun);
    std::unique_ptr<SharedStorage> edited = std::move(open().front());
    co_await edit_test_snapshot(world, std::move(edited), Action::kApply, name);
    model_.end(change, true, log.events());
    edits_.push_back({begun, log.events()});
  }

  Task<void> grow(const World& world, const sim::OpenStorages& open) {
    if (image_.version < 3 || size_ != kEditedSize || image_.backing_bytes != 0) co_return;
    size_ = ByteCount(kEditedSize.value() * 3 / 2);
    const ImageEdit resize = [this](HomeParts parts) { return resize_disk(parts, size_); };
    co_await edit_image_on(world, open, resize);
  }

  Task<void> compact(const World& world, const sim::OpenStorages& open) {
    CompactLimits limits;
    limits.tail_clusters = 16 + random_.below(200);
    limits.batch_moves = 1 + random_.below(20);
    const ImageEdit edit = [limits](HomeParts parts) { return run_compactor(parts, limits); };
    co_await edit_image_on(world, open, edit);
  }
  static Task<void> run_compactor(HomeParts parts, CompactLimits limits) {
    const std::function<void(CompactProgress)> no_progress;
    const CancelToken never;
    Compactor compactor(parts, limits, never, no_progress);
    const CompactReport report = co_await compactor.run();
    EXPECT_LE(report.bytes_after, report.bytes_before);
  }

  // --- bitmaps

  Task<void> edit_bitmap(const World& world, const sim::OpenStorages& open,
                         const sim::CrashLog& log) {
    const std::string name = drawn_bitmap();
    if (name.empty() || random_.chance(30)) {
      co_await add_bitmap_now(world, open, log);
    } else if (random_.chance(50)) {
      co_await clear_bitmap(world, open, log, name);
    } else {
      bitmaps_[name].remove_begun = log.events();
      const BitmapEdit edit = bitmap_edit(BitmapEdit::Action::kRemove, name);
      co_await edit_bitmaps_now(world, open, edit);
      bitmaps_[name].removed = log.events();
    }
  }

  Task<void> add_bitmap_now(const World& world, const sim::OpenStorages& open,
                            const sim::CrashLog& log) {
    const std::string name = "b" + std::to_string(++names_);
    BitmapLife& life = bitmaps_[name];
    life.granularity = random_.chance(50) ? 512 : kTestGranularity;
    BitmapLife::Base base;
    base.content = co_await content_on(world, image_, open, backing_of(image_));
    base.since = log.events();
    life.bases.push_back(std::move(base));
    const BitmapEdit edit = add_bitmap(name, life.granularity);
    co_await edit_bitmaps_now(world, open, edit);
    life.added = log.events();
  }

  Task<void> clear_bitmap(const World& world, const sim::OpenStorages& open,
                          const sim::CrashLog& log, std::string name) {
    BitmapLife::Base base;
    base.content = co_await content_on(world, image_, open, backing_of(image_));
    base.since = log.events();
    bitmaps_[name].bases.push_back(std::move(base));
    const BitmapEdit edit = bitmap_edit(BitmapEdit::Action::kClear, name);
    co_await edit_bitmaps_now(world, open, edit);
  }

  static Task<void> edit_bitmaps_now(const World& world, const sim::OpenStorages& open,
                                     BitmapEdit edit) {
    const std::vector<BitmapEdit> edits(1, std::move(edit));
    const ImageEdit apply = [&edits](HomeParts parts) { return parts.bitmaps.edit(edits); };
    co_await edit_image_on(world, open, apply);
  }

  // One that is there; empty: there is none.
  std::string drawn_bitmap() {
    std::vector<std::string> names;
    for (const auto& [name, life] : bitmaps_) {
      if (life.removed == kNever) names.push_back(name);
    }
    return names.empty() ? "" : names[random_.below(names.size())];
  }

  Task<void> expect_bitmaps(const World& world, const sim::OpenStorages& open, uint64_t event) {
    if (!has_bitmaps()) co_return;
    const Content content = co_await content_on(world, image_, open, backing_of(image_));
    const SeenBitmaps seen = co_await bitmaps_on(world, open);
    EXPECT_TRUE(seen.unusable.empty() || !lies_in(quiet_, event))
        << "'" << seen.unusable.front() << "' is inconsistent, and nobody wrote to the disk";
    std::set<std::string> found(seen.unusable.begin(), seen.unusable.end());
    for (const auto& [name, dirty] : seen.dirty) {
      found.insert(name);
      const BitmapLife& life = bitmaps_.at(name);
      expect_covered(dirty, life.base_at(event), content, life.granularity);
    }
    for (const std::string& name : found) {
      EXPECT_TRUE(bitmaps_.at(name).may_be_there(event)) << "bitmap " << name << " is too much";
    }
    for (const auto& [name, life] : bitmaps_) {
      EXPECT_TRUE(found.contains(name) || !life.must_be_there(event)) << name << " is lost";
    }
  }

  // --- after a crash

  // As expect_repaired_at_open, with the data file.
  Task<void> expect_repaired(const World& world, const sim::OpenStorages& open) {
    const ImageEdit nothing = [](HomeParts) { return change_nothing(); };
    co_await edit_image_on(world, open, nothing);
    std::unique_ptr<SharedStorage> checked = first_of(open);
    if (image_.version < 3) {
      co_await expect_permitted_damage(world, std::move(checked));
      co_return;
    }
    TestImage leaking = image_;
    leaking.leaks_allowed = true;
    co_await check_test_image(world, leaking, std::move(checked));
  }
  static Task<void> change_nothing() { co_return; }

  Task<void> expect_disk(const World& world, const sim::OpenStorages& open, uint64_t event) {
    const std::shared_ptr<sim::SimDisk> backing = backing_of(image_);
    std::shared_ptr<DeviceNode> node = co_await open_image_on(world, image_, open, backing, false);
    EXPECT_TRUE(node->size() == kEditedSize || node->size() == size_);
    sim::Workload reader(workload_, sim::mix_seed(seed_, event), model_, nullptr);
    Result<void> verified = co_await reader.verify_crashed(*node, event).result();
    co_await node->close();
    co_await std::move(verified);
  }

  Task<void> expect_snapshot(const World& world, const sim::OpenStorages& open, uint64_t event,
                             const std::string& name, const SnapshotLife& life) {
    std::unique_ptr<SharedStorage> storage = std::move(open().front());
    Result<Content> held =
        co_await read_compacted(world, image_, std::move(storage), name).result();
    if (held.ok()) {
      EXPECT_TRUE(life.may_be_there(event)) << "snapshot '" << name << "' should not be there";
      EXPECT_TRUE(held.value() == life.content) << "snapshot '" << name << "'";
      co_return;
    }
    EXPECT_EQ(held.error().kind, ErrorKind::kNotFound) << "snapshot '" << name << "'";
    EXPECT_FALSE(life.must_be_there(event)) << "snapshot '" << name << "' is lost";
  }

  const TestImage image_;
  const sim::WorkloadOptions workload_;
  const uint64_t seed_;
  Random random_;
  sim::ModelDisk model_;
  ByteCount size_ = kEditedSize;
  std::map<std::string, SnapshotLife> snapshots_;
  std::map<std::string, BitmapLife> bitmaps_;
  std::vector<EventRange> edits_;
  std::vector<EventRange> quiet_;  // in which no writer has the bitmaps in use
  int names_ = 0;
};

sim::WorkloadOptions mixed_workload() {
  sim::WorkloadOptions workload;
  workload.operations = 40;
  workload.length_max = 48 * 1024;
  workload.writes = 40;
  workload.zeroes = 12;
  workload.discards = 12;
  workload.flushes = 12;
  return workload;
}

constexpr uint64_t kPoints = 80;

sim::CrashSweepOptions mixed_sweep(uint64_t seed) {
  sim::CrashSweepOptions sweep;
  sweep.shards = 1 + seed % 3;
  sweep.points = sim::points_in_this_build(kPoints);
  return sweep;
}

TEST(MixedCrashTest, ACrashAnywhereInTheLifeOfAnImageLosesNothing) {
  sim::for_each_seed(12, [](uint64_t seed) {
    MixedCrash scenario(drawn_edited_image_or_extended(seed), mixed_workload(), seed);
    EXPECT_GT(run_crash_sweep(scenario, seed, mixed_sweep(seed)), 0u);
  });
}

TEST(MixedCrashTest, WithCompressedClustersAndDetectedZeros) {
  sim::for_each_seed(12, [](uint64_t seed) {
    TestImage image = drawn_edited_image(seed);
    sim::WorkloadOptions workload = mixed_workload();
    if (seed % 2 == 0) workload.compressed = 20;
    workload.zero_runs = 40;
    image.policy.detect_zeroes = seed % 3 == 0 ? DetectZeroes::kOn : DetectZeroes::kUnmap;
    MixedCrash scenario(image, workload, seed);
    EXPECT_GT(run_crash_sweep(scenario, seed, mixed_sweep(seed)), 0u);
  });
}

TEST(MixedCrashTest, OverABackingImageAndOnABlockDevice) {
  sim::for_each_seed(12, [](uint64_t seed) {
    TestImage image = drawn_edited_image(seed);
    sim::CrashSweepOptions sweep = mixed_sweep(seed);
    if (seed % 2 == 0) {
      image.backing_bytes = 300 << 10;
    } else {
      sweep.disks = {sim::SimDiskOptions::block_device(ByteCount(16 << 20), 512)};
    }
    MixedCrash scenario(image, mixed_workload(), seed);
    EXPECT_GT(run_crash_sweep(scenario, seed, sweep), 0u);
  });
}

TEST(MixedCrashTest, WithGuestDataThatIsEnciphered) {
  sim::for_each_seed(12, [](uint64_t seed) {
    TestImage image = drawn_edited_image_or_extended(seed);
    image.is_encrypted = true;
    MixedCrash scenario(image, mixed_workload(), seed);
    EXPECT_GT(run_crash_sweep(scenario, seed, mixed_sweep(seed)), 0u);
  });
}

TestImage mixed_data_file_image(uint64_t seed) {
  TestImage image = data_file_image(seed);
  image.lazy_refcounts = false;  // an edit's damage is not permitted to them
  return image;
}

sim::CrashSweepOptions two_disk_sweep(uint64_t seed) {
  sim::CrashSweepOptions sweep = mixed_sweep(seed);
  sweep.disks = {sim::SimDiskOptions::file(), sim::SimDiskOptions::file()};
  return sweep;
}

TEST(MixedCrashTest, WithTheDataInAFileOfItsOwn) {
  sim::for_each_seed(12, [](uint64_t seed) {
    MixedCrash scenario(mixed_data_file_image(seed), mixed_workload(), seed);
    EXPECT_GT(run_crash_sweep(scenario, seed, two_disk_sweep(seed)), 0u);
  });
}

// It is worth something: mistakes in the order of writes make it fail.
TEST(MixedCrashTest, FindsPlantedBugs) {
  for (const PlantedBug bug :
       {PlantedBug::kEntriesBeforeTheirClusters, PlantedBug::kFreedBeforeRemovalIsDurable,
        PlantedBug::kDataFileNotFlushed, PlantedBug::kBitmapsInUseTooLate}) {
    const bool has_data_file = bug == PlantedBug::kDataFileNotFlushed;
    bool is_found = false;
    for (uint64_t seed = 1; seed <= 8 && !is_found; ++seed) {
      TestImage image = has_data_file ? mixed_data_file_image(seed) : drawn_edited_image(seed);
      image.planted_bug = bug;
      auto sweep = [&] {
        MixedCrash scenario(image, mixed_workload(), seed);
        sim::CrashSweepOptions options = has_data_file ? two_disk_sweep(seed) : mixed_sweep(seed);
        options.points = kPoints;  // fewer would not find them
        run_crash_sweep(scenario, seed, options);
      };
      is_found = sim::failures_of(sweep) != 0;
    }
    EXPECT_TRUE(is_found) << "bug " << static_cast<int>(bug);
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
