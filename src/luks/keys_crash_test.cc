// SPDX-License-Identifier: Apache-2.0
// The power fails at any write of format, add, change, remove, config and erase, sectors torn: a
// passphrase that is right still opens, with the same volume key, but for an erase, which can be
// finished. And each request of them fails once: the error is told, and what opened before opens
// still, or what was to open does.
#include "luks/config.h"
#include "luks/header_fixture_test.h"
#include "sim/crash_sweep.h"
#include "sim/fault_sweep.h"

namespace ringdisk::luks {
namespace {

enum class Change { kFormat, kFormatAgain, kAdd, kReplace, kChange, kRemove, kConfig, kErase };

struct Scenario {
  uint32_t version;
  Change change;
  uint32_t slot = 0;  // the first one; 6 of LUKS1 lies in two sectors, of which either may be lost
};

std::string name_of(const ::testing::TestParamInfo<Scenario>& info) {
  constexpr const char* kNames[] = {"Format", "FormatAgain", "Add",    "Replace",
                                    "Change", "Remove",      "Config", "Erase"};
  return "Luks" + std::to_string(info.param.version) +
         kNames[static_cast<size_t>(info.param.change)] + "Slot" + std::to_string(info.param.slot);
}

constexpr std::string_view kFirst = "first passphrase", kSecond = "second passphrase";
constexpr const char* kOldUuid = "11111111-1111-4111-8111-111111111111";
constexpr const char* kNewUuid = "22222222-2222-4222-8222-222222222222";
constexpr std::string_view kKey = "0123456789abcdef", kOtherKey = "fedcba9876543210";

FormatRequest request_of(Scenario scenario, std::string_view key, std::string_view passphrase) {
  FormatRequest request = tested_request(scenario.version);
  request.slot = scenario.slot;
  request.volume_key = as_bytes(key);
  request.passphrase = as_bytes(passphrase);
  request.uuid = kOldUuid;
  return request;
}

Task<void> prepare_volume(const World& world, HeaderWindow window, Scenario scenario) {
  if (scenario.change == Change::kFormat) co_return;
  FormatRequest request = request_of(scenario, kKey, kFirst);
  co_await format_only(world, window, request);
  if (scenario.change != Change::kRemove) co_return;
  NewKey key = tested_key(scenario.version, kSecond);
  key.slot = scenario.slot + 1;
  Unlock with = by_passphrase(kFirst);
  uint32_t slot = co_await add_key(world, window, with, key);
  EXPECT_EQ(slot, scenario.slot + 1);
}

HeaderConfig config_of(Scenario scenario) {
  HeaderConfig config;
  config.uuid = kNewUuid;
  if (scenario.version == 1) return config;
  config.label = "a label";
  config.slot_priority = 2;
  config.slot = scenario.slot;
  return config;
}

Task<void> change_volume(const World& world, HeaderWindow window, Scenario scenario) {
  const Unlock with = by_passphrase(kFirst);
  NewKey key = tested_key(scenario.version, kSecond);
  if (scenario.change == Change::kAdd) key.slot = scenario.slot + 1;
  switch (scenario.change) {
    case Change::kFormat:
    case Change::kFormatAgain:
      co_await format_only(world, window, request_of(scenario, kOtherKey, kSecond));
      co_return;
    case Change::kAdd: {
      uint32_t slot = co_await add_key(world, window, with, key);
      EXPECT_EQ(slot, scenario.slot + 1);
      co_return;
    }
    case Change::kReplace: {
      key.slot = scenario.slot;
      key.may_replace = true;
      uint32_t slot = co_await add_key(world, window, with, key);
      EXPECT_EQ(slot, scenario.slot);
      co_return;
    }
    case Change::kChange: {
      uint32_t slot = co_await change_key(world, window, with, key);
      EXPECT_EQ(slot, scenario.slot);
      co_return;
    }
    case Change::kRemove: {
      uint32_t slot = co_await remove_key(world, window, with, false);
      EXPECT_EQ(slot, scenario.slot);
      co_return;
    }
    case Change::kConfig:
      co_await change_config(world, window, config_of(scenario));
      co_return;
    case Change::kErase: {
      uint32_t erased = co_await erase_keys(world, window);
      EXPECT_EQ(erased, 1u);
      co_return;
    }
  }
}

// Whether the passphrase opens the volume, by this slot where one is named; it then has the right
// key.
Task<bool> opens(const World& world, HeaderWindow window, std::string_view passphrase,
                 std::string_view right_key, std::optional<uint32_t> only = std::nullopt) {
  int slot = -1;
  std::vector<std::byte> key;
  Unlock with = by_passphrase(passphrase);
  with.slot = only;
  Result<void> opened = co_await unlock_into(world, window, with, slot, key).result();
  if (!opened.ok()) co_return false;
  EXPECT_EQ(as_text(key), right_key);
  co_return true;
}

Task<bool> has_header(const World& world, HeaderWindow window) {
  Result<LuksHeader> header = co_await read_header(world, window).result();
  co_return header.ok();
}

// No header names a slot whose material is not there yet, or not any more.
Task<void> expect_slots_open(const World& world, HeaderWindow window) {
  LuksHeader header = co_await read_header(world, window);
  VolumeFacts facts = co_await supported_facts(world, window, header);
  for (const KeySlot& slot : facts.slots) {
    const bool by_second = co_await opens(world, window, kSecond, kKey, slot.number);
    if (by_second) continue;
    const bool by_first = co_await opens(world, window, kFirst, kKey, slot.number);
    EXPECT_TRUE(by_first) << "slot " << slot.number;
  }
}

// All of the new words are there, or none.
Task<void> expect_config(const World& world, HeaderWindow window) {
  LuksHeader header = co_await read_header(world, window);
  const bool is_new = header.uuid() == kNewUuid;
  if (!is_new) {
    EXPECT_EQ(header.uuid(), kOldUuid);
  }
  if (header.luks1) co_return;
  EXPECT_EQ(header.luks2->binary.label, is_new ? "a label" : "");
  EXPECT_EQ(header.luks2->metadata.slots.front().slot.priority, is_new ? 2u : 1u);
}

// It is finished by doing it again, and nobody gets in any more.
Task<void> expect_erasable(const World& world, HeaderWindow window) {
  co_await erase_keys(world, window);
  const bool by_first = co_await opens(world, window, kFirst, kKey);
  EXPECT_FALSE(by_first);
  LuksHeader header = co_await read_header(world, window);
  const VolumeFacts facts = co_await supported_facts(world, window, header);
  EXPECT_TRUE(facts.slots.empty() && facts.unusable_slots.empty());
}

// Whatever happened, somebody who should get in does.
Task<void> expect_opens(const World& world, HeaderWindow window, Scenario scenario) {
  const bool is_format =
      scenario.change == Change::kFormat || scenario.change == Change::kFormatAgain;
  if (scenario.change == Change::kConfig) co_await expect_config(world, window);
  const std::string_view new_key = is_format ? kOtherKey : kKey;
  if (!is_format) co_await expect_slots_open(world, window);
  if (scenario.change == Change::kErase) {
    co_await expect_erasable(world, window);
    co_return;
  }
  const bool by_second = co_await opens(world, window, kSecond, new_key);
  if (scenario.change == Change::kRemove) {
    EXPECT_TRUE(by_second);
    co_return;
  }
  if (by_second) co_return;
  if (is_format) {
    // No header is there, or still the old one, whole.
    const bool is_there = co_await has_header(world, window);
    if (!is_there) co_return;
    EXPECT_EQ(scenario.change, Change::kFormatAgain);
  }
  const bool by_first = co_await opens(world, window, kFirst, kKey);
  EXPECT_TRUE(by_first);
}

template <class F>
Task<void> on_first(const sim::OpenStorages& open, F use) {
  std::unique_ptr<SharedStorage> storage = std::move(open().front());
  co_await use_header(std::move(storage), use);
}

class KeyCrash final : public sim::CrashScenario {
 public:
  explicit KeyCrash(Scenario scenario) : scenario_(scenario) {}
  Task<void> prepare(const World& world, const sim::OpenStorages& open) override {
    return on_first(open, [&world, this](HeaderWindow window) {
      return prepare_volume(world, window, scenario_);
    });
  }
  Task<void> work(const World& world, const sim::OpenStorages& open,
                  const sim::CrashLog&) override {
    return on_first(open, [&world, this](HeaderWindow window) {
      return change_volume(world, window, scenario_);
    });
  }
  Task<void> verify(const World& world, const sim::OpenStorages& open, uint64_t) override {
    return on_first(open, [&world, this](HeaderWindow window) {
      return expect_opens(world, window, scenario_);
    });
  }

 private:
  const Scenario scenario_;
};

class KeyChanges : public ::testing::TestWithParam<Scenario> {};
INSTANTIATE_TEST_SUITE_P(
    Luks, KeyChanges,
    ::testing::Values(Scenario{1, Change::kFormat}, Scenario{1, Change::kFormatAgain},
                      Scenario{1, Change::kAdd}, Scenario{1, Change::kChange},
                      Scenario{1, Change::kRemove}, Scenario{1, Change::kFormatAgain, 6},
                      Scenario{1, Change::kAdd, 5}, Scenario{1, Change::kAdd, 6},
                      Scenario{1, Change::kChange, 6}, Scenario{1, Change::kRemove, 6},
                      Scenario{1, Change::kConfig}, Scenario{2, Change::kConfig},
                      Scenario{1, Change::kErase}, Scenario{1, Change::kErase, 6},
                      Scenario{2, Change::kErase}, Scenario{1, Change::kReplace},
                      Scenario{2, Change::kReplace}, Scenario{2, Change::kFormat},
                      Scenario{2, Change::kFormatAgain}, Scenario{2, Change::kAdd},
                      Scenario{2, Change::kChange}, Scenario{2, Change::kRemove}),
    name_of);

TEST_P(KeyChanges, LeaveAVolumeThatOpensWheneverThePowerFails) {
  sim::for_each_seed(1, [](uint64_t seed) {
    KeyCrash scenario(GetParam());
    sim::CrashSweepOptions options;
    options.shards = 1;
    options.points = 60;
    options.subsets = 5;
    // LUKS1 is configured with one write.
    const bool is_short = GetParam().change == Change::kConfig;
    EXPECT_GT(run_crash_sweep(scenario, seed, options), is_short ? 1u : 10u);
  });
}

// Whether a request was made to fail.
bool run_with_fault(Scenario scenario, uint64_t n) {
  sim::SimWorld world(7);
  sim::SimDisk disk(sim::SimDiskOptions::file(), 7);
  auto run = [&](auto step) {
    auto use = [&](HeaderWindow window) { return step(world.world(), window, scenario); };
    auto root = [&](Shard&) { return use_header(header_storage(disk), use); };
    return world.run(root);
  };
  EXPECT_TRUE(run(&prepare_volume).ok());
  sim::SimFaults faults;
  faults.fail_at = n;
  disk.set_faults(&faults);
  const Result<void> changed = run(&change_volume);
  disk.set_faults(nullptr);
  EXPECT_EQ(changed.ok(), faults.failed == 0);
  if (!changed.ok()) {
    EXPECT_EQ(changed.error().errno_value, EIO);
  }
  EXPECT_TRUE(run(&expect_opens).ok());
  return faults.failed != 0;
}

TEST_P(KeyChanges, TellEveryFailureAndLeaveAVolumeThatOpens) {
  auto run = [](uint64_t n) { return run_with_fault(GetParam(), n); };
  EXPECT_GT(sim::sweep_faults(500, run), GetParam().change == Change::kConfig ? 2u : 5u);
}

}  // namespace
}  // namespace ringdisk::luks
