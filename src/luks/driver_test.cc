// SPDX-License-Identifier: Apache-2.0
// LUKS images as disks, through the whole block layer: the contract of every disk, the power
// failing, openings that fail, and what is said of them. interop/luks_disk_test.py has the peers.
#include "luks/driver.h"

#include <gmock/gmock.h>

#include "luks/admin.h"
#include "luks/header_fixture_test.h"
#include "luks/view.h"
#include "nodes/raw.h"
#include "sim/crash_sweep.h"
#include "sim/device_contract.h"
#include "sim/fault_sweep.h"
#include "sim/seeds.h"

namespace ringdisk::luks {
namespace {

using ::testing::HasSubstr;

class TestSecrets final : public SecretSource {
 public:
  Task<SharedSecret> find(SecretWish wish) override {
    if (wish.id == "absent") co_return Error::of(ErrorKind::kNotFound, "find secret");
    const std::string_view text = wish.id == "wrong" ? "someone else's" : "first passphrase";
    SecretBytes secret = co_await SecretBytes::copy_of(as_bytes(text));
    co_return std::make_shared<const SecretBytes>(std::move(secret));
  }
};

FormatRequest request_of(uint32_t version) {
  FormatRequest request = tested_request(version);
  if (version == 1) return request;
  // Of the modes the one in which half a sector that was written reads as such.
  request.cipher = CipherSpec();
  request.key_bytes = 32;
  request.sector_size = 4096;
  return request;
}

Task<std::shared_ptr<DeviceNode>> open_disk(const World& world,
                                            std::unique_ptr<SharedStorage> storage, bool read_only,
                                            Options options) {
  world.diagnostics.add_node("disk.luks");
  const Drivers drivers;
  const OpenGate gate(world.diagnostics);
  TestSecrets secrets;
  Graph graph(world, drivers, gate, &secrets);
  OpenMode mode;
  mode.read_only = read_only;
  FormatOpening opening{world, graph, std::move(storage), "", mode, std::move(options)};
  const FormatDriver driver = luks_driver(raw_driver(), {CpuFeatures::detect()});
  OpenedFormat opened = co_await driver.open(std::move(opening));
  co_return std::make_shared<DeviceNode>("disk.luks", 1, std::move(opened.node), nullptr);
}

Task<std::shared_ptr<DeviceNode>> open_plainly(const World& world,
                                               std::unique_ptr<SharedStorage> storage,
                                               bool read_only) {
  Options options;
  co_return co_await open_disk(world, std::move(storage), read_only, std::move(options)).result();
}

// With zeros written, since a new disk holds noise.
Task<void> create_disk(const World& world, FormatRequest request, SharedStorage& storage,
                       ByteCount size) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  const HeaderWindow window(*access);
  const uint32_t sector_size = request.sector_size;
  LuksVolume volume = co_await format_luks(world, window, std::move(request));
  if (access->limits().grows) co_await access->resize(volume.payload_offset + size);
  std::unique_ptr<SectorCipher> cipher = co_await make_sector_cipher(
      volume.cipher, volume.key.bytes(), sector_size, CpuFeatures::detect());
  LuksViewOptions options;
  options.cipher = std::move(cipher);
  options.payload_offset = volume.payload_offset;
  SharedStorage view(std::make_unique<LuksView>(storage, std::move(options)));
  std::unique_ptr<StorageAccess> payload = co_await StorageAccess::open(view, Shard::current());
  co_await payload->write_zeroes(HostRange(HostOffset(0), size));
}

sim::ImageFormat disk_format(uint32_t version) {
  sim::ImageFormat format;
  format.name = "luks";
  format.create = [version](const World& world, SharedStorage& storage, ByteCount size) {
    return create_disk(world, request_of(version), storage, size);
  };
  format.open = &open_plainly;
  return format;
}

RINGDISK_DEVICE_CONTRACT(luks1, disk_format(1), sim::SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(luks2_4k, disk_format(2), sim::SimDiskOptions::file());

TEST(LuksDiskCrashTest, ACrashLosesNothingThatWasFlushed) {
  sim::for_each_seed(4, [](uint64_t seed) {
    sim::DeviceCrashOptions options;
    options.workload.operations = 60;
    options.workload.flushes = 10;
    options.sweep.shards = 1 + seed % 3;
    options.sweep.points = 8;
    EXPECT_GT(run_device_crash_sweep(disk_format(1), seed, options), 0u);
  });
}

// --- openings

class LuksDriverTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  static constexpr ByteCount kSize{256 << 10};

  LuksDriverTest() : disk_(sim::SimDiskOptions::file(), 1) {
    auto create = [&](Shard&) { return create_all(); };
    EXPECT_TRUE(world_.run(create).ok());
  }
  // Opens with such options; its size, or the error as a person reads it.
  std::string opened(std::string_view options, uint64_t* size = nullptr) {
    auto open = [&](Shard&) { return open_and_close(options, size); };
    const Result<void> done = world_.run(open);
    return done.ok() ? "" : world_.diagnostics().describe(done.error());
  }
  Result<void> try_open() {
    auto open = [&](Shard&) { return open_and_close("", nullptr); };
    return world_.run(open);
  }
  void cut(uint64_t bytes) {
    auto resize = [&](Shard&) { return resize_file(ByteCount(bytes)); };
    EXPECT_TRUE(world_.run(resize).ok());
  }
  CheckReport check(CheckRepair repair = CheckRepair::kNone) {
    CheckReport report;
    auto look = [&](Shard&) { return check_into(repair, report); };
    EXPECT_TRUE(world_.run(look).ok());
    return report;
  }
  sim::SimDisk& disk() { return disk_; }

 private:
  Task<void> create_all() {
    std::unique_ptr<SharedStorage> storage = header_storage(disk_);
    co_await create_disk(world_.world(), request_of(GetParam()), *storage, kSize);
    co_await storage->node->close();
  }
  Task<void> open_and_close(std::string_view text, uint64_t* size) {
    Options options = co_await Options::parse(text, world_.diagnostics());
    std::shared_ptr<DeviceNode> device =
        co_await open_disk(world_.world(), header_storage(disk_), false, std::move(options));
    if (size) *size = device->size().value();
    co_await device->close();
  }
  Task<void> resize_file(ByteCount size) {
    std::unique_ptr<SharedStorage> storage = header_storage(disk_);
    std::unique_ptr<StorageAccess> access =
        co_await StorageAccess::open(*storage, Shard::current());
    co_await access->resize(size);
    access.reset();
    co_await storage->node->close();
  }
  Task<void> check_into(CheckRepair repair, CheckReport& report) {
    std::unique_ptr<SharedStorage> storage = header_storage(disk_);
    CheckOptions options;
    options.repair = repair;
    const CancelToken never;
    const std::function<void(CheckProgress)> no_progress;
    const std::unique_ptr<FormatAdmin> admin = make_luks_admin();
    std::optional<CheckReport> found =
        co_await admin->check(world_.world(), *storage, options, never, no_progress);
    report = std::move(found).value();
    co_await storage->node->close();
  }

  sim::SimWorld world_{3, 1};
  sim::SimDisk disk_;
};

TEST_P(LuksDriverTest, TheDiskIsThePayload) {
  uint64_t size = 0;
  EXPECT_EQ(opened("key-secret=sec0", &size), "");
  EXPECT_EQ(size, kSize.value());
  EXPECT_EQ(opened("allow-discards=on"), "");
}

TEST_P(LuksDriverTest, WhatCannotBeOpenedIsNamed) {
  EXPECT_NE(opened("key-secret=wrong").find("key slot"), std::string::npos);
  EXPECT_NE(opened("key-secret=absent"), "");
  EXPECT_NE(opened("offset=512").find("luks has no option 'offset'"), std::string::npos);
  EXPECT_NE(opened("allow-discards=maybe").find("'maybe'"), std::string::npos);
}

TEST_P(LuksDriverTest, APayloadThatIsCutShortIsASizeError) {
  cut((1 << 20) + 100);
  EXPECT_NE(opened(""), "");
  EXPECT_EQ(check().corruptions, 1u);
  cut(1 << 19);
  EXPECT_NE(opened(""), "");
  EXPECT_EQ(check().corruptions, 1u);
}

TEST_P(LuksDriverTest, EveryFailureOfAnOpeningIsReported) {
  auto run = [this](uint64_t n) {
    sim::SimFaults faults;
    faults.fail_at = n;
    disk().set_faults(&faults);
    const Result<void> done = try_open();
    disk().set_faults(nullptr);
    // LUKS2 has a second copy of its header, which the first one's failure leads to.
    if (!done.ok()) {
      EXPECT_EQ(done.error().errno_value, EIO);
    } else if (GetParam() == 1) {
      EXPECT_EQ(faults.failed, 0u);
    }
    return faults.failed != 0;
  };
  EXPECT_GT(sim::sweep_faults(100, run), 1u);
  EXPECT_EQ(opened(""), "");
}

TEST_P(LuksDriverTest, CheckFindsADamagedHeader) {
  EXPECT_EQ(check().corruptions, 0u);
  const std::byte wrong[4] = {};
  disk().poke(GetParam() == 1 ? 108 : 0, wrong);  // the length of the key; the magic
  const CheckReport found = check();
  EXPECT_EQ(found.corruptions, 1u);
  ASSERT_EQ(found.messages.size(), 1u);
  if (GetParam() == 1) return;  // it has no second copy
  EXPECT_EQ(check(CheckRepair::kAll).corruptions_fixed, 1u);
  EXPECT_EQ(check().corruptions, 0u);
}

TEST_P(LuksDriverTest, AnImagesOptionsSetWhatItsHeaderMayAskFor) {
  const bool is_luks1 = GetParam() == 1;
  const std::string option = is_luks1 ? "kdf-iterations-max" : "kdf-memory-max";
  EXPECT_EQ(opened(option + (is_luks1 ? "=1000" : "=32k")), "");
  const std::string refused = opened(option + (is_luks1 ? "=999" : "=32767"));
  EXPECT_THAT(refused, HasSubstr(is_luks1 ? "the volume's digest asks for 1000"
                                          : "key slot 0 asks for 32 KiB"));
  EXPECT_THAT(refused, HasSubstr(option + " sets the limit"));
  if (is_luks1) return;
  EXPECT_EQ(opened("kdf-work-max=128k"), "");
  EXPECT_THAT(opened("kdf-work-max=127k"), HasSubstr("kdf-work-max sets the limit"));
}

TEST_P(LuksDriverTest, ALimitBeyondAllHeadersIsAMistake) {
  EXPECT_THAT(opened("kdf-iterations-max=5G"), HasSubstr("kdf-iterations-max is larger than"));
  EXPECT_THAT(opened("kdf-memory-max=8E"), HasSubstr("kdf-memory-max"));
  EXPECT_THAT(opened("kdf-memory-max=much"), HasSubstr("kdf-memory-max"));
}

INSTANTIATE_TEST_SUITE_P(Versions, LuksDriverTest, ::testing::Values(1u, 2u));

TEST(LuksProbeTest, OnlyTheMagicAndAKnownVersionAreLuks) {
  const FormatDriver driver = luks_driver(raw_driver(), {CpuFeatures()});
  std::vector<std::byte> bytes(512);
  auto set = [&](std::string_view text) {
    copy_bytes(as_bytes(text), MutableBytes(bytes).first(text.size()));
  };
  EXPECT_EQ(driver.probe(bytes), 0);
  set(std::string_view("LUKS\xba\xbe\0\1", 8));
  EXPECT_EQ(driver.probe(bytes), 100);
  set(std::string_view("LUKS\xba\xbe\0\2", 8));
  EXPECT_EQ(driver.probe(bytes), 100);
  set(std::string_view("LUKS\xba\xbe\0\3", 8));
  EXPECT_EQ(driver.probe(bytes), 0);
  EXPECT_EQ(driver.probe(Bytes(bytes).first(7)), 0);
}

}  // namespace
}  // namespace ringdisk::luks
