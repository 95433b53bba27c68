// SPDX-License-Identifier: Apache-2.0
// Headers copied away and back.
#include "luks/backup.h"

#include <gmock/gmock.h>

#include "luks/header_fixture_test.h"
#include "sim/crash_sweep.h"

namespace ringdisk::luks {
namespace {

using ::testing::HasSubstr;

// A header of several pieces, as they are copied.
FormatRequest large_request(uint32_t version) {
  FormatRequest request = tested_request(version);
  request.payload_offset = ByteCount(4 << 20);
  return request;
}

class Backups : public ::testing::TestWithParam<uint32_t> {
 protected:
  Backups() : volume(large_request(GetParam())), file(sim::SimDiskOptions::file(), 5) {}

  Result<void> backup() {
    auto use = [&](HeaderWindow source) {
      return [](const World& world, sim::SimDisk& target, HeaderWindow from) -> Task<void> {
        auto inner = [&](HeaderWindow to) { return backup_header(world, from, to); };
        co_await use_header(header_storage(target), inner);
      }(volume.world(), file, source);
    };
    return volume.run(use);
  }
  Result<void> restore(TestVolume& to, bool force) {
    auto use = [&](HeaderWindow target) {
      return [](const World& world, sim::SimDisk& source, HeaderWindow there, bool forced,
                uint64_t bytes) -> Task<void> {
        auto inner = [&](HeaderWindow from) {
          const HeaderWindow cut(from.storage(), HostOffset(0), ByteCount(bytes));
          return restore_header(world, bytes == 0 ? from : cut, there, forced);
        };
        co_await use_header(header_storage(source), inner);
      }(to.world(), file, target, force, bytes_there);
    };
    return to.run(use);
  }
  Result<void> remove_all() {
    auto use = [&](HeaderWindow window) {
      return kill_slot(volume.world(), window, 0, std::nullopt, true);
    };
    return volume.run(use);
  }

  TestVolume volume;
  sim::SimDisk file;
  uint64_t bytes_there = 0;  // of the backup; 0: all
};
INSTANTIATE_TEST_SUITE_P(Luks, Backups, ::testing::Values(1u, 2u));

TEST_P(Backups, BringBackAPassphraseThatWasRemoved) {
  ASSERT_TRUE(backup().ok());
  EXPECT_EQ(file.size() % 4096, 0u);
  ASSERT_TRUE(remove_all().ok());
  ASSERT_EQ(volume.slot_of("first passphrase"), -1);
  ASSERT_TRUE(restore(volume, false).ok());
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
}

TEST_P(Backups, AreNotWrittenOverAnotherVolumeUnlessForced) {
  ASSERT_TRUE(backup().ok());
  TestVolume other(GetParam());
  const Result<void> refused = restore(other, false);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().kind, ErrorKind::kDenied);
  EXPECT_THAT(other.text_of(refused), HasSubstr("the backup is of another volume"));
  EXPECT_EQ(other.slot_of("first passphrase"), 0);
  ASSERT_TRUE(restore(other, true).ok());
  ASSERT_EQ(volume.slot_of("first passphrase"), 0);
  ASSERT_EQ(other.slot_of("first passphrase"), 0);
  EXPECT_TRUE(other.key == volume.key);
}

TEST_P(Backups, NeedForceWhereNoHeaderIs) {
  ASSERT_TRUE(backup().ok());
  volume.change_byte(0);
  if (GetParam() == 2) volume.change_byte(kLuks2HeaderBytesMin);
  EXPECT_EQ(restore(volume, false).error().kind, ErrorKind::kDenied);
  ASSERT_TRUE(restore(volume, true).ok());
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
}

TEST_P(Backups, OfNoHeaderAreRefused) {
  std::vector<std::byte> noise(100'000, std::byte{7});
  file.poke(0, noise);
  const Result<void> refused = restore(volume, true);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalid);
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
}

TEST(Backup, WithRequirementsNeedsForce) {
  TestVolume volume(2);
  sim::SimDisk file(sim::SimDiskOptions::file(), 5);
  auto back_up = [&](HeaderWindow source) -> Task<void> {
    return [](const World& world, sim::SimDisk& target, HeaderWindow from) -> Task<void> {
      LuksHeader header = co_await read_header(world, from);
      const Json before = header.luks2->json;
      Json requirements = parse_json(R"({"mandatory":["online-reencrypt-v2"]})").value();
      header.luks2->json.find("config")->set("requirements", std::move(requirements));
      co_await write_luks2_header(world, from, *header.luks2);
      auto inner = [&](HeaderWindow to) { return backup_header(world, from, to); };
      co_await use_header(header_storage(target), inner);
      header.luks2->json = before;
      co_await write_luks2_header(world, from, *header.luks2);
    }(volume.world(), file, source);
  };
  ASSERT_TRUE(volume.run(back_up).ok());
  auto restore = [&](bool force) {
    auto use = [&](HeaderWindow target) -> Task<void> {
      return
          [](const World& world, sim::SimDisk& source, HeaderWindow to, bool forced) -> Task<void> {
            auto inner = [&](HeaderWindow from) { return restore_header(world, from, to, forced); };
            co_await use_header(header_storage(source), inner);
          }(volume.world(), file, target, force);
    };
    return volume.run(use);
  };
  const Result<void> refused = restore(false);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().kind, ErrorKind::kDenied);
  EXPECT_THAT(volume.text_of(refused), HasSubstr("the backup requires 'online-reencrypt-v2'"));
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
  EXPECT_TRUE(restore(true).ok());
}

TEST(Backup, IsNotRestoredWhereItHasNoRoom) {
  TestVolume volume(2);
  sim::SimDisk file(sim::SimDiskOptions::file(), 5);
  auto use = [&](HeaderWindow source) -> Task<void> {
    return [](const World& world, sim::SimDisk& target, HeaderWindow from) -> Task<void> {
      auto inner = [&](HeaderWindow to) { return backup_header(world, from, to); };
      co_await use_header(header_storage(target), inner);
      const HeaderWindow small(from.storage(), HostOffset(0), ByteCount(64 << 10));
      auto back = [&](HeaderWindow backup) { return restore_header(world, backup, small, true); };
      Result<void> restored = co_await use_header(header_storage(target), back).result();
      EXPECT_FALSE(restored.ok());
      EXPECT_EQ(restored.error().kind, ErrorKind::kNoSpace);
    }(volume.world(), file, source);
  };
  ASSERT_TRUE(volume.run(use).ok());
  EXPECT_EQ(volume.slot_of("first passphrase"), 0) << "the header there was destroyed first";
}

TEST_P(Backups, ThatWereCutShortAreNotRestored) {
  ASSERT_TRUE(backup().ok());
  bytes_there = 40 << 10;  // within the first key slot's area
  const Result<void> refused = restore(volume, true);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().kind, ErrorKind::kCorrupt);
  EXPECT_THAT(volume.text_of(refused), HasSubstr("the file ends within key slot 0"));
  EXPECT_EQ(volume.slot_of("first passphrase"), 0) << "the header there was destroyed first";
}

TEST_P(Backups, ThatEndBehindTheKeySlotsInUseAreRestored) {
  ASSERT_TRUE(backup().ok());
  ASSERT_TRUE(remove_all().ok());
  bytes_there = GetParam() == 1 ? 80 << 10 : 200 << 10;
  const Result<void> restored = restore(volume, false);
  EXPECT_TRUE(restored.ok()) << volume.text_of(restored);
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
}

// --- the power fails while a header is restored

// `disk` has the first passphrase, then the backup is taken, then it has the second.
Task<void> prepare_restore(const World& world, HeaderWindow disk, HeaderWindow file,
                           uint32_t version) {
  FormatRequest request = tested_request(version);
  co_await format_only(world, disk, request);
  co_await backup_header(world, disk, file);
  Unlock with = by_passphrase("first passphrase");
  NewKey key = tested_key(version, "second passphrase");
  const uint32_t slot = co_await change_key(world, disk, with, key);
  EXPECT_EQ(slot, 0u);
}

Task<void> restore_only(const World& world, HeaderWindow disk, HeaderWindow file, uint32_t) {
  co_await restore_header(world, file, disk, false);
}

// No header, or one that opens; and what was to be restored can be restored still.
Task<void> expect_whole_or_none(const World& world, HeaderWindow disk, HeaderWindow file,
                                uint32_t) {
  Result<LuksHeader> header = co_await read_header(world, disk).result();
  int slot = -1;
  std::vector<std::byte> key;
  if (header.ok()) {
    Unlock second = by_passphrase("second passphrase");
    Unlock first = by_passphrase("first passphrase");
    Result<void> by_second = co_await unlock_into(world, disk, second, slot, key).result();
    Result<void> by_first = co_await unlock_into(world, disk, first, slot, key).result();
    EXPECT_TRUE(by_first.ok() || by_second.ok());
  }
  co_await restore_header(world, file, disk, true);
  Unlock with = by_passphrase("first passphrase");
  co_await unlock_into(world, disk, with, slot, key);
  EXPECT_EQ(slot, 0);
}

using RestoreStep = Task<void> (*)(const World&, HeaderWindow, HeaderWindow, uint32_t);

class RestoreCrash final : public sim::CrashScenario {
 public:
  explicit RestoreCrash(uint32_t version) : version_(version) {}
  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    return run(world, open, &prepare_restore);
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    return run(world, open, &restore_only);
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    return run(world, open, &expect_whole_or_none);
  }

 private:
  Task<void> run(const World& world, const sim::OpenStorages& open, RestoreStep step) {
    std::vector<std::unique_ptr<SharedStorage>> storages = open();
    std::unique_ptr<SharedStorage> disk = std::move(storages[0]), file = std::move(storages[1]);
    auto with_disk = [&](HeaderWindow disk_window) {
      return run_on_file(world, disk_window, file, step);
    };
    co_await use_header(std::move(disk), with_disk);
  }
  Task<void> run_on_file(const World& world, HeaderWindow disk,
                         std::unique_ptr<SharedStorage>& file, RestoreStep step) {
    auto with_file = [&](HeaderWindow file_window) {
      return step(world, disk, file_window, version_);
    };
    co_await use_header(std::move(file), with_file);
  }

  const uint32_t version_;
};

TEST_P(Backups, AreRestoredAsAWholeOrNotAtAll) {
  sim::for_each_seed(1, [](uint64_t seed) {
    RestoreCrash scenario(GetParam());
    sim::CrashSweepOptions options;
    options.shards = 1;
    options.points = 40;
    options.subsets = 4;
    options.disks = {sim::SimDiskOptions::file(), sim::SimDiskOptions::file()};
    EXPECT_GT(run_crash_sweep(scenario, seed, options), 10u);
  });
}

}  // namespace
}  // namespace ringdisk::luks
