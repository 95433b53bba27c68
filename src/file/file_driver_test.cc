// SPDX-License-Identifier: Apache-2.0
// Opening by options: what is refused and what the user is told; and a block device as a file.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "block/storage_access.h"
#include "file/file_node.h"
#include "file/temporary_file_for_test.h"
#include "sim/real_world.h"

namespace ringdisk::file {
namespace {

using sim::RealWorld;

class FileDriverTest : public testing::Test {
 protected:
  Task<std::unique_ptr<StorageNode>> open(std::string text, OpenMode mode) {
    Options options = co_await Options::parse(text, world_.diagnostics());
    StorageDriver driver = file_driver();
    co_return co_await driver.open(world_.world(), options, mode).result();
  }
  // What the user reads; empty: it was opened (and closed again).
  std::string refusal(std::string text, OpenMode mode = OpenMode()) {
    auto body = [&](Shard&) { return open(text, mode); };
    Result<std::unique_ptr<StorageNode>> node = world_.run(body);
    error_ = node.ok() ? Error() : node.error();
    if (!node.ok()) return world_.diagnostics().describe(node.error());
    auto close = [&](Shard&) { return node.value()->close(); };
    EXPECT_TRUE(world_.run(close).ok());
    return "";
  }

  RealWorld world_;
  Error error_;
};

TEST_F(FileDriverTest, WhatCannotBeOpenedIsNamedWithItsCause) {
  EXPECT_NE(refusal("filename=/var/tmp/no/such/file").find("No such file"), std::string::npos);
  EXPECT_EQ(error_.kind, ErrorKind::kNotFound);
  EXPECT_NE(refusal("filename=/var/tmp").find("/var/tmp"), std::string::npos);
  EXPECT_EQ(error_.errno_value, EISDIR);
  EXPECT_NE(refusal("filename=/dev/null").find("neither a regular file"), std::string::npos);
  EXPECT_NE(refusal("cache=none").find("needs a filename"), std::string::npos);
}

TEST_F(FileDriverTest, APipeIsRefusedWithoutWaitingForItsOtherEnd) {
  TemporaryFile name(kDiskDirectory);
  ASSERT_EQ(unlink(name.path().c_str()), 0);
  ASSERT_EQ(mkfifo(name.path().c_str(), 0600), 0);
  OpenMode mode;
  mode.read_only = true;
  std::string text = refusal("filename=" + name.path(), mode);
  EXPECT_NE(text.find("neither a regular file"), std::string::npos) << text;
}

TEST_F(FileDriverTest, OptionsAreUnderstoodOrNamed) {
  TemporaryFile file(kDiskDirectory);
  const std::string name = "filename=" + file.path();
  for (const char* good : {"cache=none", "cache=directsync", "cache.direct=on", "cache.no-flush=on",
                           "cache=none,cache.direct=off", "locking=on", "locking=off",
                           "discard=ignore", "discard=unmap"}) {
    EXPECT_EQ(refusal(name + "," + good), "") << good;
  }
  for (const char* bad : {"cache=fast", "locking=maybe", "discard=perhaps", "colour=red",
                          "cache.direct=on,cache.no-flush=on"}) {
    EXPECT_NE(refusal(name + "," + bad), "") << bad;
    EXPECT_EQ(error_.kind, ErrorKind::kInvalid) << bad;
  }
  OpenMode shared_writer;
  shared_writer.share = true;
  EXPECT_NE(refusal(name, shared_writer), "");
}

Task<void> use_as_told(RealWorld& world, std::string text, OpenMode mode, HostRange discarded) {
  Options options = co_await Options::parse(text, world.diagnostics());
  StorageDriver driver = file_driver();
  std::unique_ptr<StorageNode> node = co_await driver.open(world.world(), options, mode);
  SharedStorage storage(std::move(node));
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  Result<void> done = co_await access->discard(discarded).result();
  access.reset();
  co_await storage.node->close();
  co_await std::move(done);
}

TEST_F(FileDriverTest, DiscardIsIgnoredWhereAskedFor) {
  TemporaryFile file(kDiskDirectory);
  std::vector<std::byte> content = block_pattern(1, 1 << 20);
  file.write(0, content);
  HostRange all(HostOffset(0), ByteCount(content.size()));
  auto ignore = [&](Shard&) {
    return use_as_told(world_, "discard=ignore,filename=" + file.path(), OpenMode(), all);
  };
  EXPECT_TRUE(world_.run(ignore).ok());
  EXPECT_TRUE(file.read(0, content.size()) == content);
  auto unmap = [&](Shard&) {
    return use_as_told(world_, "filename=" + file.path(), OpenMode(), all);
  };
  EXPECT_TRUE(world_.run(unmap).ok());
  EXPECT_TRUE(file.read(0, content.size()) == std::vector<std::byte>(content.size()));
}

TEST_F(FileDriverTest, AReadOnlyNodeRefusesChanges) {
  TemporaryFile file(kDiskDirectory);
  file.resize(65536);
  OpenMode mode;
  mode.read_only = true;
  HostRange all(HostOffset(0), ByteCount(65536));
  auto body = [&](Shard&) { return use_as_told(world_, "filename=" + file.path(), mode, all); };
  Result<void> refused = world_.run(body);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().kind, ErrorKind::kDenied);
}

// --- a block device ------------------------------------------------------------------------------

// A loop device over a file, where we may make one.
class LoopDevice {
 public:
  explicit LoopDevice(const TemporaryFile& file) {
    const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    const int backing = ::open(file.path().c_str(), O_RDWR | O_CLOEXEC);
    const int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (number >= 0) {
      path_ = "/dev/loop" + std::to_string(number);
      fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
      if (fd_ >= 0 && ioctl(fd_, LOOP_SET_FD, backing) != 0) {
        ::close(fd_);
        fd_ = -1;
      }
    }
    if (backing >= 0) ::close(backing);
    if (control >= 0) ::close(control);
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  ~LoopDevice() {
    if (fd_ < 0) return;
    EXPECT_EQ(ioctl(fd_, LOOP_CLR_FD, 0), 0);
    ::close(fd_);
  }
  bool is_there() const { return fd_ >= 0; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int fd_ = -1;
};

Task<void> use_device(RealWorld& world, std::string path, CacheMode cache) {
  Options options;
  options.set("filename", path);
  OpenMode mode;
  mode.cache = cache;
  StorageDriver driver = file_driver();
  std::unique_ptr<StorageNode> node = co_await driver.open(world.world(), options, mode);
  SharedStorage storage(std::move(node));
  std::unique_ptr<StorageAccess> device = co_await StorageAccess::open(storage, Shard::current());
  EXPECT_EQ(device->size().value(), 4u << 20);
  EXPECT_FALSE(device->limits().grows);
  std::vector<std::byte> bytes = block_pattern(2, 100001), read(1 << 20), expected(1 << 20);
  HostRange first(HostOffset(0), ByteCount(1 << 20));
  co_await device->write_zeroes(first);
  co_await device->write(HostOffset(777), ConstBuffers(Bytes(bytes)));
  std::copy(bytes.begin(), bytes.end(), expected.begin() + 777);
  HostRange middle(HostOffset(40000), ByteCount(30001));
  co_await device->write_zeroes(middle);
  std::fill_n(expected.begin() + 40000, 30001, std::byte{0});
  co_await device->flush();
  co_await device->read(HostOffset(0), MutableBuffers(MutableBytes(read)));
  EXPECT_TRUE(read == expected);
  HostRange last(HostOffset((4 << 20) - 65536), ByteCount(65536));
  co_await device->discard(last);
  StorageExtent extent = co_await device->find_extent(last);
  EXPECT_FALSE(extent.zero);
  Result<void> beyond =
      co_await device->write(HostOffset(4 << 20), ConstBuffers(Bytes(bytes))).result();
  EXPECT_FALSE(beyond.ok());
  device.reset();
  co_await storage.node->close();
}

TEST_F(FileDriverTest, ABlockDeviceIsAFileOfFixedSize) {
  for (CacheMode cache : {CacheMode::kWriteback, CacheMode::kNone, CacheMode::kWritethrough}) {
    TemporaryFile file(kDiskDirectory);
    file.resize(4 << 20);
    LoopDevice device(file);
    if (!device.is_there()) GTEST_SKIP() << "no permission to make a loop device";
    auto body = [&](Shard&) { return use_device(world_, device.path(), cache); };
    Result<void> used = world_.run(body);
    EXPECT_TRUE(used.ok()) << (used.ok() ? "" : world_.diagnostics().describe(used.error()));
  }
}

}  // namespace
}  // namespace ringdisk::file
