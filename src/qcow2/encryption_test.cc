// SPDX-License-Identifier: Apache-2.0
// Images whose guest data is enciphered by the place it lies at: the disk as with any image, the
// power failing anywhere, changes of the image as a whole, what reaches the file, what is refused.
// The cipher is a toy (toy_encryption_test.h); interop/qcow2_encryption_test.py has the real one.
#include <gtest/gtest.h>

#include "qcow2/admin.h"
#include "qcow2/edit/edit_fixture_test.h"
#include "qcow2/image_stage_test.h"
#include "sim/crash_sweep.h"
#include "sim/device_contract.h"
#include "sim/fault_sweep.h"
#include "sim/model_run.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

TestImage encrypted_image(uint64_t seed) {
  Random random(seed);
  TestImage image;
  image.version = seed % 7 == 1 ? 2 : 3;
  image.cluster_bits = static_cast<uint32_t>(9 + random.below(8));
  image.refcount_order = static_cast<uint32_t>(random.below(7));
  image.lazy_refcounts = image.version == 3 && seed % 5 == 0;
  image.extended_l2 = image.version == 3 && image.cluster_bits >= 14 && seed % 2 == 0;
  image.is_encrypted = true;
  return image;
}

RINGDISK_DEVICE_CONTRACT(qcow2_encrypted, test_format(encrypted_image(3)),
                         sim::SimDiskOptions::file());

TEST(EncryptedModelTest, HoldsWhatWasWritten) {
  sim::for_each_seed(60, [](uint64_t seed) {
    sim::ModelTestOptions options;
    run_model_test(test_format(encrypted_image(seed)), seed, options);
  });
}

TEST(EncryptedModelTest, HoldsWhatWasWrittenOverABackingImage) {
  sim::for_each_seed(30, [](uint64_t seed) {
    sim::ModelTestOptions options;
    TestImage image = encrypted_image(seed);
    image.backing_bytes = options.size.value() * 6 / 10 / 4096 * 4096 + 512 * (seed % 8);
    run_model_test(test_format(image), seed, options);
  });
}

TEST(EncryptedModelTest, HoldsWhatWasWrittenOnABlockDevice) {
  sim::for_each_seed(30, [](uint64_t seed) {
    sim::ModelTestOptions options;
    const uint32_t block = seed % 2 ? 4096 : 512;
    options.disk = sim::SimDiskOptions::block_device(ByteCount(16 << 20), block);
    run_model_test(test_format(encrypted_image(seed)), seed, options);
  });
}

TEST(EncryptedCrashTest, ACrashLosesNothingThatWasFlushed) {
  sim::for_each_seed(20, [](uint64_t seed) {
    TestImage image = encrypted_image(seed);
    image.leaks_allowed = true;
    sim::DeviceCrashOptions options;
    options.workload.operations = 100;
    options.workload.length_max = 48 * 1024;
    options.workload.flushes = 15;
    options.sweep.shards = 1 + seed % 3;
    options.sweep.points = 25;
    EXPECT_GT(run_device_crash_sweep(test_format(image), seed, options), 0u);
  });
}

TEST(EncryptedFaultTest, EveryFailureIsReportedAndTheImageStaysRight) {
  sim::for_each_seed(2, [](uint64_t seed) {
    TestImage image = encrypted_image(seed);
    image.leaks_allowed = true;
    sim::DeviceFaultOptions options;
    options.workload.operations = 60;
    options.workload.errors_allowed = true;
    options.step = 5;
    EXPECT_GT(run_device_fault_sweep(test_format(image), seed, options), 1u);
  });
}

// --- one image

class EncryptedImageTest : public ::testing::Test {
 protected:
  void make(TestImage image) {
    image.is_encrypted = true;
    image_ = image;
    content_.assign(kEditedSize.value(), std::byte{0});
    auto create = [&](Shard&) { return create_and_write(); };
    ASSERT_TRUE(world_.run(create).ok());
  }
  // One of the admin's changes, or its error as a person reads it.
  using Change = std::function<Task<void>(FormatAdmin&, Graph&, std::unique_ptr<SharedStorage>)>;
  std::string change(const Change& change) {
    auto work = [&](Shard&) { return run_change(change); };
    const Result<void> changed = world_.run(work);
    return changed.ok() ? "" : world_.world().diagnostics.describe(changed.error());
  }
  std::string refusal_to_open(const DataEncryption* encryption, const std::string& key,
                              const std::string& value) {
    auto work = [&](Shard&) { return open_with(encryption, key, value); };
    const Result<void> opened = world_.run(work);
    return opened.ok() ? "" : world_.world().diagnostics.describe(opened.error());
  }
  ImageDescription description() {
    ImageDescription described;
    auto look = [&](Shard&) { return describe(described); };
    EXPECT_TRUE(world_.run(look).ok());
    return described;
  }
  void expect_content(const std::string& snapshot = "") {
    auto look = [&](Shard&) {
      return expect_one_of(world_.world(), storage_on(disk_), snapshot, content_, content_);
    };
    EXPECT_TRUE(world_.run(look).ok());
  }
  void expect_sound() {
    auto check = [&](Shard&) {
      return check_test_image(world_.world(), image_, storage_on(disk_));
    };
    EXPECT_TRUE(world_.run(check).ok());
  }
  void write_more(uint64_t seed) {
    auto work = [&](Shard&) {
      return write_image(world_.world(), image_, storage_on(disk_), seed, content_);
    };
    EXPECT_TRUE(world_.run(work).ok());
  }
  // The error of a write to the disk's first sector.
  Error write_to_front() {
    auto work = [&](Shard&) { return write_first(); };
    const Result<void> written = world_.run(work);
    return written.ok() ? Error() : written.error();
  }
  sim::SimDisk& disk() { return disk_; }
  Content& content() { return content_; }

 private:
  Task<void> write_first() {
    std::shared_ptr<DeviceNode> device =
        co_await open_test_image(world_.world(), image_, nullptr, storage_on(disk_), false);
    std::unique_ptr<DeviceQueue> queue = co_await device->open_queue(Shard::current());
    const Content bytes(512, std::byte{7});
    const ConstBuffers source{Bytes(bytes)};
    Result<void> written = co_await queue->write(GuestOffset(0), source, WriteOptions()).result();
    queue.reset();
    Result<void> closed = co_await device->close().result();
    static_cast<void>(closed.ok());  // it is read-only by now, and says so
    co_await std::move(written);
  }
  Task<void> create_and_write() {
    std::unique_ptr<SharedStorage> storage = storage_on(disk_);
    co_await create_test_image(image_, *storage, kEditedSize);
    co_await storage->node->close();
    co_await write_image(world_.world(), image_, storage_on(disk_), 3, content_);
  }
  Task<void> run_change(const Change& change) {
    const Drivers drivers;
    const OpenGate gate(world_.world().diagnostics);
    Graph graph(world_.world(), drivers, gate);
    const std::unique_ptr<FormatAdmin> admin = make_qcow2_admin(&toy_encryption());
    co_await change(*admin, graph, storage_on(disk_));
  }
  Task<void> open_with(const DataEncryption* encryption, std::string key, std::string value) {
    world_.world().diagnostics.add_node("disk.qcow2");
    const Drivers drivers;
    const OpenGate gate(world_.world().diagnostics);
    Graph graph(world_.world(), drivers, gate);
    Options options;
    options.set(std::move(key), std::move(value));
    FormatOpening opening{world_.world(),    graph, storage_on(disk_), "", OpenMode(),
                          std::move(options)};
    const FormatDriver driver = qcow2_driver(encryption);
    OpenedFormat opened = co_await driver.open(std::move(opening));
    co_await opened.node->close();
  }
  Task<void> describe(ImageDescription& described) {
    std::unique_ptr<SharedStorage> storage = storage_on(disk_);
    described = co_await describe_image(world_.world(), *storage, &toy_encryption());
    co_await storage->node->close();
  }

  sim::SimWorld world_{7, 1};
  sim::SimDisk disk_{sim::SimDiskOptions::file(), 7};
  TestImage image_;
  Content content_;
};

// No sector that the guest has written stands in the file as it is.
TEST_F(EncryptedImageTest, NothingOfTheGuestsStandsInTheFile) {
  make(TestImage());
  std::vector<std::byte> file(disk().size());
  disk().peek(0, file);
  const std::string_view text = as_text(file);
  size_t written = 0;
  for (size_t at = 0; at < content().size(); at += 512) {
    const Bytes sector = Bytes(content()).subspan(at, 512);
    if (std::ranges::all_of(sector, [](std::byte one) { return one == std::byte{0}; })) continue;
    ++written;
    EXPECT_EQ(text.find(as_text(sector.first(32))), std::string_view::npos) << at;
  }
  EXPECT_GT(written, 10u);
}

Task<void> resize_with(FormatAdmin& admin, Graph& graph, std::unique_ptr<SharedStorage> storage,
                       ByteCount size) {
  co_await admin.resize(graph, std::move(storage), size);
}

// All of these change metadata alone, and none asks for a passphrase.
TEST_F(EncryptedImageTest, ChangesOfTheWholeImageKeepWhatItHolds) {
  make(TestImage());
  const Change snapshot = [](FormatAdmin& admin, Graph& graph,
                             std::unique_ptr<SharedStorage> storage) {
    SnapshotEdit edit;
    edit.name = "before";
    return admin.edit_snapshots(graph, std::move(storage), std::move(edit));
  };
  ASSERT_EQ(change(snapshot), "");
  const Content before = content();
  write_more(4);
  expect_content();
  const Content after = content();
  content() = before;
  expect_content("before");
  content() = after;
  const Change grow = [](FormatAdmin& admin, Graph& graph, std::unique_ptr<SharedStorage> storage) {
    return resize_with(admin, graph, std::move(storage), kEditedSize + ByteCount(1 << 20));
  };
  ASSERT_EQ(change(grow), "");
  content().resize(kEditedSize.value() + (1 << 20));
  expect_content();
  const Change apply = [](FormatAdmin& admin, Graph& graph,
                          std::unique_ptr<SharedStorage> storage) {
    SnapshotEdit edit;
    edit.action = SnapshotEdit::Action::kApply;
    edit.name = "before";
    return admin.edit_snapshots(graph, std::move(storage), std::move(edit));
  };
  ASSERT_EQ(change(apply), "");
  content() = before;
  expect_content();
  expect_sound();
}

TEST_F(EncryptedImageTest, InfoShowsTheEncryption) {
  make(TestImage());
  const ImageDescription described = description();
  EXPECT_TRUE(described.encrypted);
  auto is_it = [](const DescribedField& field) { return field.key == "encrypt"; };
  const auto found = std::ranges::find_if(described.specific, is_it);
  ASSERT_NE(found, described.specific.end());
  ASSERT_EQ(found->children.size(), 2u);
  EXPECT_EQ(found->children[1].key, "format");
  EXPECT_EQ(found->children[1].text, "luks");
}

TEST_F(EncryptedImageTest, WhatCannotBeDoneIsRefusedAndSaysWhy) {
  make(TestImage());
  EXPECT_NE(refusal_to_open(nullptr, "encrypt.format", "luks").find("encrypted"),
            std::string::npos);
  EXPECT_NE(refusal_to_open(&toy_encryption(), "encrypt.format", "aes").find("'aes'"),
            std::string::npos);
  EXPECT_NE(refusal_to_open(&toy_encryption(), "encrypt.key-secret", "wrong"), "");
  EXPECT_NE(
      refusal_to_open(&toy_encryption(), "encrypt.iter-time", "1").find("'encrypt.iter-time'"),
      std::string::npos);
  EXPECT_EQ(refusal_to_open(&toy_encryption(), "encrypt.key-secret", "right"), "");
  const Change compact = [](FormatAdmin& admin, Graph& graph,
                            std::unique_ptr<SharedStorage> storage) -> Task<void> {
    CompactRequest request;
    request.options.set("encrypt.key-secret", "wrong");
    co_await admin.compact(graph, std::move(storage), std::move(request));
  };
  EXPECT_NE(change(compact), "");
  expect_content();
}

// A guest's write through it would take the key slots with it.
TEST_F(EncryptedImageTest, APointerIntoTheEncryptionHeaderIsDamage) {
  TestImage image;
  image.cluster_bits = 16;
  make(image);
  const uint64_t l1_at = 3 << 16, header_at = 4 << 16;
  const uint64_t l2_at = entry_on(disk(), l1_at) & 0x00fffffffffffe00;
  put_entry_on(disk(), l2_at, kCopied | header_at);
  EXPECT_EQ(write_to_front().kind, ErrorKind::kCorrupt);
  std::vector<std::byte> header(kToyHeaderBytes);
  disk().peek(header_at, header);
  EXPECT_TRUE(header == toy_header());
}

// A file that was cut short: zeros would be a lie, and deciphered they are noise.
TEST(CutShortTest, WhatLiesBeyondTheEndOfTheFileIsAnErrorThatSaysSo) {
  for (const bool extended : {false, true}) {
    TestImage image;
    image.is_encrypted = true;
    image.extended_l2 = extended;
    image.cluster_bits = 14;
    constexpr uint64_t kCluster = 1 << 14;
    ImageStage stage(image, ByteCount(1 << 20), sim::SimDiskOptions::file());
    auto fill = [](DeviceQueue& queue) { return write_stamped(queue, 0, 3 * kCluster, 7); };
    ASSERT_TRUE(stage.use(fill).ok());
    const uint64_t l2_at = stage.get64(3 * kCluster) & kOffsetMask;
    // One of the three lies partly beyond the end then, another one wholly.
    const uint64_t end = stage.disk.size();
    const std::vector<std::byte> part(512);
    stage.disk.poke(end, part);
    const uint64_t entry_bytes = extended ? 16 : 8;
    stage.put64(l2_at + entry_bytes, kCopied | end);
    stage.put64(l2_at + 2 * entry_bytes, kCopied | (end + kCluster));
    for (const uint64_t at : {kCluster + 512, 2 * kCluster}) {
      auto look = [at](DeviceQueue& queue) { return expect_stamped(queue, at, 512, 7); };
      const Result<void> read = stage.use(look, true);
      ASSERT_FALSE(read.ok()) << at;
      EXPECT_EQ(read.error().kind, ErrorKind::kCorrupt);
      EXPECT_EQ(read.error().errno_value, EIO);
      EXPECT_EQ(stage.text_of(read), "disk.qcow2: has been cut short");
      // Half a sector of it cannot be written either.
      auto write = [at](DeviceQueue& queue) { return write_stamped(queue, at, 100, 8); };
      EXPECT_FALSE(stage.use(write).ok());
    }
    auto rest = [](DeviceQueue& queue) { return expect_stamped(queue, 0, kCluster, 7); };
    EXPECT_TRUE(stage.use(rest, true).ok());
  }
}

// The image of `from` with its file cut to `size`.
void cut_file(ImageStage& from, uint64_t size, ImageStage& to) {
  std::vector<std::byte> bytes(size);
  from.disk.peek(0, bytes);
  to.disk.poke(0, bytes);
}

Task<void> check_and_repair(const World& world, std::unique_ptr<SharedStorage> storage,
                            CheckReport& report) {
  CheckOptions options;
  options.repair = CheckRepair::kAll;
  const CancelToken never;
  const std::function<void(CheckProgress)> no_progress;
  Result<std::optional<CheckReport>> checked =
      co_await check_image(world, *storage, options, never, no_progress).result();
  co_await storage->node->close();
  const std::optional<CheckReport> found = co_await std::move(checked);
  report = found.value();
}

// The first write would make the file longer, and what is missing noise. A repair makes no zeros
// of it either.
TEST(CutShortTest, ItIsNotWrittenToAndNotRepairedToZeros) {
  TestImage image;
  image.is_encrypted = true;
  constexpr uint64_t kCluster = 4096, kFilled = 24 * kCluster;
  ImageStage whole(image, ByteCount(1 << 20), sim::SimDiskOptions::file());
  auto fill = [](DeviceQueue& queue) { return write_stamped(queue, 0, kFilled, 7); };
  ASSERT_TRUE(whole.use(fill).ok());
  auto nothing = [](DeviceQueue&) -> Task<void> { co_return; };
  ASSERT_TRUE(whole.use(nothing).ok());
  const uint64_t size = whole.disk.size();
  for (const uint64_t lost : {uint64_t{512}, kCluster, 3 * kCluster, 3 * kCluster + 512}) {
    ImageStage cut(image, ByteCount(1 << 20), sim::SimDiskOptions::file());
    cut_file(whole, size - lost, cut);
    const Result<void> opened = cut.use(nothing);
    ASSERT_FALSE(opened.ok()) << lost;
    EXPECT_EQ(opened.error().kind, ErrorKind::kCorrupt);
    EXPECT_NE(cut.text_of(opened).find("it can only be read"), std::string::npos);
    CheckReport report;
    auto repair = [&](Shard&) {
      return check_and_repair(cut.world.world(), cut.storage(), report);
    };
    ASSERT_TRUE(cut.world.run(repair).ok());
    EXPECT_GE(report.corruptions, (lost + kCluster - 1) / kCluster) << lost;
    auto look = [](DeviceQueue& queue) { return expect_stamped(queue, 0, kFilled, 7); };
    EXPECT_FALSE(cut.use(look, true).ok()) << lost;
    EXPECT_FALSE(cut.use(nothing).ok()) << lost;
    auto look_at_rest = [lost](DeviceQueue& queue) {
      return expect_stamped(queue, 0, kFilled - (lost + kCluster - 1) / kCluster * kCluster, 7);
    };
    EXPECT_TRUE(cut.use(look_at_rest, true).ok()) << lost;
  }
}

// A crash may leave clusters that are counted where no file is yet.
TEST(CutShortTest, LeaksBeyondTheEndOfTheFileAreNoHindrance) {
  TestImage image;
  image.is_encrypted = true;
  image.leaks_allowed = true;
  constexpr uint64_t kCluster = 4096;
  ImageStage stage(image, ByteCount(1 << 20), sim::SimDiskOptions::file());
  auto fill = [](DeviceQueue& queue) { return write_stamped(queue, 0, 8 * kCluster, 7); };
  ASSERT_TRUE(stage.use(fill).ok());
  std::byte counter[2];
  store_be16(counter, 1);
  stage.disk.poke(2 * kCluster + stage.disk.size() / kCluster * 2, counter);
  auto more = [](DeviceQueue& queue) { return write_stamped(queue, 16 * kCluster, kCluster, 8); };
  EXPECT_TRUE(stage.use(more).ok());
  auto look = [](DeviceQueue& queue) { return expect_stamped(queue, 0, 8 * kCluster, 7); };
  EXPECT_TRUE(stage.use(look).ok());
  stage.check();
}

TEST(EncryptionHeaderTest, WhereItCannotBeIsRefused) {
  constexpr uint64_t kCluster = 4096;
  Diagnostics diagnostics;
  auto verdict = [&](HostRange place) {
    TestImage image;
    image.is_encrypted = true;
    const std::vector<std::byte> bytes = encode_test_image(image, ByteCount(1 << 20));
    Header header = parse_header(bytes, diagnostics, 0).value();
    set_encryption_header(header, place);
    const std::vector<std::byte> encoded = encode_header(header).value();
    Result<Header> parsed = parse_header(encoded, diagnostics, 0);
    if (!parsed.ok()) return diagnostics.describe(parsed.error());
    const Result<void> placed =
        check_places(parsed.value(), ByteCount(bytes.size()), diagnostics, 0);
    return placed.ok() ? std::string() : diagnostics.describe(placed.error());
  };
  auto place = [](uint64_t at, uint64_t length) {
    return HostRange(HostOffset(at), ByteCount(length));
  };
  EXPECT_EQ(verdict(place(4 * kCluster, kToyHeaderBytes)), "");
  for (HostRange wrong :
       {place(0, 512), place(4 * kCluster, 0), place(4 * kCluster + 512, 512),
        place(4 * kCluster, kEncryptionHeaderBytesMax + 1), place(uint64_t{1} << 63, 512)}) {
    EXPECT_NE(verdict(wrong).find("an encryption header of"), std::string::npos);
  }
  EXPECT_NE(verdict(place(3 * kCluster, 512)).find("lies on the L1 table"), std::string::npos);
  EXPECT_NE(verdict(place(5 * kCluster, 512)).find("beyond the end"), std::string::npos);
  EXPECT_NE(verdict(place(4 * kCluster, 2 * kCluster)).find("beyond the end"), std::string::npos);
}

TEST(EncryptionHeaderTest, AnEncryptedImageWithoutOneIsRefused) {
  Diagnostics diagnostics;
  TestImage image;
  const std::vector<std::byte> bytes = encode_test_image(image, ByteCount(1 << 20));
  Header header = parse_header(bytes, diagnostics, 0).value();
  header.encryption = Encryption::kLuks;
  const Result<Header> parsed = parse_header(encode_header(header).value(), diagnostics, 0);
  ASSERT_FALSE(parsed.ok());
  EXPECT_NE(diagnostics.describe(parsed.error()).find("names no encryption header"),
            std::string::npos);
}

}  // namespace
}  // namespace ringdisk::qcow2
