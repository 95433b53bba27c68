// SPDX-License-Identifier: Apache-2.0
// Headers copied away and back.
#include "luks/backup.h"

#include <gmock/gmock.h>

#include "luks/header_fixture_test.h"
#include "sim/crash_sweep.h"

namespace ringdisk::luks {
namespace {

using ::testing::HasSubstr;

// use(one, other) -> Task<void> on two storages.
template <class F>
Task<void> use_two(std::unique_ptr<SharedStorage> one, std::unique_ptr<SharedStorage> other,
                   F& use) {
  auto outer = [&](HeaderWindow first) {
    auto inner = [&use, first](HeaderWindow second) { return use(first, second); };
    return use_header(std::move(other), inner);
  };
  co_await use_header(std::move(one), outer);
}

class Backups : public ::testing::TestWithParam<uint32_t> {
 protected:
  Backups() : volume(GetParam()), file(sim::SimDiskOptions::file(), 5) {}

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
      return [](const World& world, sim::SimDisk& source, HeaderWindow there,
                bool forced) -> Task<void> {
        auto inner = [&](HeaderWindow from) { return restore_header(world, from, there, forced); };
        co_await use_header(header_storage(source), inner);
      }(to.world(), file, target, force);
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

}  // namespace
}  // namespace ringdisk::luks
