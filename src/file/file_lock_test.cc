// SPDX-License-Identifier: Apache-2.0
// Who may open what beside whom: among our own nodes, and against QEMU's programs where they are
// installed.
#include "file/file_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "async/scope.h"
#include "base/diagnostics.h"
#include "file/file_node.h"
#include "file/temporary_file_for_test.h"
#include "sim/real_world.h"

namespace ringdisk::file {
namespace {

using sim::RealWorld;

OpenMode mode_of(LockUse use) {
  OpenMode mode;
  mode.read_only = use != LockUse::kWrite;
  mode.share = use == LockUse::kReadShared;
  return mode;
}

class FileLockTest : public testing::Test {
 protected:
  FileLockTest() : file_(kDiskDirectory) { file_.resize(1 << 20); }

  Task<std::unique_ptr<StorageNode>> open(OpenMode mode, std::string locking) {
    Options options;
    options.set("filename", file_.path());
    options.set("locking", locking);
    StorageDriver driver = file_driver();
    co_return co_await driver.open(world_.world(), options, mode).result();
  }
  Result<std::unique_ptr<StorageNode>> try_open(LockUse use, std::string locking = "auto") {
    auto body = [&](Shard&) { return open(mode_of(use), locking); };
    return world_.run(body);
  }
  Result<void> try_create(uint64_t size) {
    auto body = [&](Shard&) {
      Options options;
      options.set("filename", file_.path());
      return file_driver().create(world_.world(), options, ByteCount(size));
    };
    return world_.run(body);
  }
  void close(StorageNode& node) {
    auto body = [&node](Shard&) { return node.close(); };
    EXPECT_TRUE(world_.run(body).ok());
  }
  std::string text_of(const Error& error) { return world_.diagnostics().describe(error); }

  RealWorld world_;
  TemporaryFile file_;
};

TEST_F(FileLockTest, ReadersShareAWriterDoesNotAndAForcedReaderAlwaysMay) {
  constexpr LockUse kUses[] = {LockUse::kRead, LockUse::kWrite, LockUse::kReadShared};
  for (LockUse first : kUses) {
    for (LockUse second : kUses) {
      Result<std::unique_ptr<StorageNode>> holder = try_open(first);
      ASSERT_TRUE(holder.ok());
      Result<std::unique_ptr<StorageNode>> other = try_open(second);
      const bool shared = first == LockUse::kReadShared || second == LockUse::kReadShared;
      const bool both_read = first == LockUse::kRead && second == LockUse::kRead;
      EXPECT_EQ(other.ok(), shared || both_read)
          << static_cast<int>(first) << " then " << static_cast<int>(second);
      if (other.ok()) close(*other.value());
      close(*holder.value());
      // What is closed is free again.
      Result<std::unique_ptr<StorageNode>> later = try_open(LockUse::kWrite);
      ASSERT_TRUE(later.ok());
      close(*later.value());
    }
  }
}

TEST_F(FileLockTest, TheRefusalNamesTheFileTheLockAndTheWayOut) {
  Result<std::unique_ptr<StorageNode>> holder = try_open(LockUse::kWrite);
  ASSERT_TRUE(holder.ok());
  Result<std::unique_ptr<StorageNode>> other = try_open(LockUse::kRead);
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().kind, ErrorKind::kBusy);
  std::string text = text_of(other.error());
  EXPECT_NE(text.find(file_.path()), std::string::npos) << text;
  EXPECT_NE(text.find("is in use by another program"), std::string::npos) << text;
  EXPECT_NE(text.find("\"write\" lock"), std::string::npos) << text;
  EXPECT_NE(text.find("use -U to read it anyway"), std::string::npos) << text;
  close(*holder.value());
}

TEST_F(FileLockTest, WhoCannotShareIsNotToldTo) {
  Result<std::unique_ptr<StorageNode>> holder = try_open(LockUse::kWrite);
  ASSERT_TRUE(holder.ok());
  auto body = [&](Shard&) {
    Options options;
    options.set("filename", file_.path());
    return file_driver(false).open(world_.world(), options, mode_of(LockUse::kRead));
  };
  Result<std::unique_ptr<StorageNode>> other = world_.run(body);
  ASSERT_FALSE(other.ok());
  const std::string text = text_of(other.error());
  EXPECT_NE(text.find("end that program first"), std::string::npos) << text;
  EXPECT_EQ(text.find("use -U"), std::string::npos) << text;
  close(*holder.value());
}

// As the kernel lets go of what a killed process held, a little late.
TEST_F(FileLockTest, AHolderThatIsAboutToLetGoIsWaitedFor) {
  Result<std::unique_ptr<StorageNode>> holder = try_open(LockUse::kWrite);
  ASSERT_TRUE(holder.ok());
  auto let_go_soon = [&]() -> Task<void> {
    Result<void> slept = co_await Shard::current().sleep(std::chrono::milliseconds(20));
    co_await std::move(slept);
    co_await holder.value()->close();
  };
  auto open_meanwhile = [&](Scope& scope) -> Task<void> {
    scope.spawn(let_go_soon());
    std::unique_ptr<StorageNode> node = co_await open(mode_of(LockUse::kWrite), "auto");
    co_await node->close();
  };
  auto body = [&](Shard&) { return with_scope(open_meanwhile); };
  Result<void> opened = world_.run(body);
  EXPECT_TRUE(opened.ok()) << (opened.ok() ? "" : text_of(opened.error()));
}

TEST_F(FileLockTest, AHolderThatStaysIsNotWaitedForLong) {
  Result<std::unique_ptr<StorageNode>> holder = try_open(LockUse::kWrite);
  ASSERT_TRUE(holder.ok());
  const Instant began = world_.world().clock.now();
  Result<std::unique_ptr<StorageNode>> other = try_open(LockUse::kWrite);
  const Duration took = world_.world().clock.now() - began;
  EXPECT_FALSE(other.ok());
  EXPECT_GE(took, std::chrono::milliseconds(100));
  EXPECT_LT(took, std::chrono::seconds(5)) << "a busy machine takes its time, but not this much";
  close(*holder.value());
}

TEST_F(FileLockTest, LockingCanBeSwitchedOff) {
  Result<std::unique_ptr<StorageNode>> holder = try_open(LockUse::kWrite);
  ASSERT_TRUE(holder.ok());
  Result<std::unique_ptr<StorageNode>> other = try_open(LockUse::kWrite, "off");
  ASSERT_TRUE(other.ok());
  close(*other.value());
  close(*holder.value());
}

TEST_F(FileLockTest, CreatingCutsNothingThatSomebodyUses) {
  std::vector<std::byte> content = block_pattern(1, 1 << 20);
  file_.write(0, content);
  for (LockUse use : {LockUse::kWrite, LockUse::kRead}) {
    Result<std::unique_ptr<StorageNode>> holder = try_open(use);
    ASSERT_TRUE(holder.ok());
    Result<void> created = try_create(4096);
    ASSERT_FALSE(created.ok());
    EXPECT_EQ(created.error().kind, ErrorKind::kBusy);
    EXPECT_TRUE(file_.read(0, content.size()) == content);
    close(*holder.value());
  }
  ASSERT_TRUE(try_create(4096).ok());
  EXPECT_EQ(file_.size(), 4096u);
  EXPECT_EQ(file_.read(0, 4096), std::vector<std::byte>(4096));
}

TEST_F(FileLockTest, ANewFileIsPlainAndOfTheSizeAsked) {
  ASSERT_EQ(unlink(file_.path().c_str()), 0);
  const mode_t before = umask(0);
  Result<void> created = try_create(12345678);
  umask(before);
  ASSERT_TRUE(created.ok());
  struct stat status {};
  ASSERT_EQ(stat(file_.path().c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 12345678);
  EXPECT_EQ(status.st_mode & 07777u, 0644u);
}

// --- against QEMU
// ---------------------------------------------------------------------------------

// A program of ours to be run, with its output.
class Program {
 public:
  explicit Program(std::vector<std::string> words) {
    std::array<int, 2> to_us{}, to_it{};
    EXPECT_EQ(pipe2(to_us.data(), O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(to_it.data(), O_CLOEXEC), 0);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    process_ = fork();
    if (process_ == 0) {
      dup2(to_it[0], STDIN_FILENO);
      dup2(to_us[1], STDOUT_FILENO);
      dup2(to_us[1], STDERR_FILENO);
      execvp(arguments[0], arguments.data());
      _exit(127);
    }
    ::close(to_us[1]);
    ::close(to_it[0]);
    output_ = to_us[0];
    input_ = to_it[1];
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (process_ > 0) finish();
  }

  // Reads until `text` has come, or the end of the output.
  bool says(const std::string& text) {
    std::array<char, 512> piece;
    while (said_.find(text) == std::string::npos) {
      const ssize_t count = ::read(output_, piece.data(), piece.size());
      if (count <= 0) return false;
      said_.append(piece.data(), static_cast<size_t>(count));
    }
    return true;
  }
  // Closes its input and waits for its end. Its exit status.
  int finish() {
    ::close(input_);
    while (says("\x01 never said")) continue;
    ::close(output_);
    int status = 0;
    EXPECT_EQ(waitpid(std::exchange(process_, 0), &status, 0) > 0, true);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  const std::string& said() const { return said_; }

 private:
  pid_t process_ = 0;
  int output_ = -1;
  int input_ = -1;
  std::string said_;
};

bool has_qemu() { return Program({"qemu-io", "--version"}).finish() == 0; }

#define SKIP_WITHOUT_QEMU() \
  if (!has_qemu()) GTEST_SKIP() << "qemu-io is not installed"

class QemuLockTest : public FileLockTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_QEMU();
    Program create({"qemu-img", "create", "-q", "-f", GetParam(), file_.path(), "1M"});
    ASSERT_EQ(create.finish(), 0) << create.said();
  }
};

TEST_P(QemuLockTest, WhatQemuWritesWeOpenOnlyWhenForced) {
  Program qemu({"qemu-io", "-f", GetParam(), file_.path()});
  ASSERT_TRUE(qemu.says("qemu-io>")) << qemu.said();
  EXPECT_FALSE(try_open(LockUse::kWrite).ok());
  EXPECT_FALSE(try_open(LockUse::kRead).ok());
  EXPECT_FALSE(try_create(4096).ok());
  Result<std::unique_ptr<StorageNode>> forced = try_open(LockUse::kReadShared);
  ASSERT_TRUE(forced.ok());
  close(*forced.value());
  EXPECT_EQ(qemu.finish(), 0);
  Result<std::unique_ptr<StorageNode>> later = try_open(LockUse::kWrite);
  ASSERT_TRUE(later.ok());
  close(*later.value());
}

TEST_P(QemuLockTest, WhatQemuReadsWeMayRead) {
  Program qemu({"qemu-io", "-r", "-f", GetParam(), file_.path()});
  ASSERT_TRUE(qemu.says("qemu-io>")) << qemu.said();
  Result<std::unique_ptr<StorageNode>> reader = try_open(LockUse::kRead);
  ASSERT_TRUE(reader.ok());
  close(*reader.value());
  // A reader of qcow2 forbids writing; one of raw does not, in QEMU.
  Result<std::unique_ptr<StorageNode>> writer = try_open(LockUse::kWrite);
  EXPECT_EQ(writer.ok(), std::string(GetParam()) == "raw");
  if (writer.ok()) close(*writer.value());
  EXPECT_EQ(qemu.finish(), 0);
}

TEST_P(QemuLockTest, WhatWeWriteQemuRefusesToWriteAndItsQcow2ToRead) {
  Result<std::unique_ptr<StorageNode>> holder = try_open(LockUse::kWrite);
  ASSERT_TRUE(holder.ok());
  Program writer({"qemu-io", "-f", GetParam(), "-c", "read 0 512", file_.path()});
  EXPECT_NE(writer.finish(), 0);
  EXPECT_NE(writer.said().find("lock"), std::string::npos) << writer.said();
  Program reader({"qemu-img", "info", "-f", GetParam(), file_.path()});
  const int status = reader.finish();
  if (std::string(GetParam()) == "qcow2") {
    EXPECT_NE(status, 0);
    EXPECT_NE(reader.said().find("lock"), std::string::npos) << reader.said();
  }
  Program forced({"qemu-img", "info", "-U", "-f", GetParam(), file_.path()});
  EXPECT_EQ(forced.finish(), 0) << forced.said();
  close(*holder.value());
  Program later({"qemu-io", "-f", GetParam(), "-c", "read 0 512", file_.path()});
  EXPECT_EQ(later.finish(), 0) << later.said();
}

TEST_P(QemuLockTest, WhatWeReadQemuMayReadButNotWrite) {
  Result<std::unique_ptr<StorageNode>> holder = try_open(LockUse::kRead);
  ASSERT_TRUE(holder.ok());
  Program reader({"qemu-io", "-r", "-f", GetParam(), "-c", "read 0 512", file_.path()});
  EXPECT_EQ(reader.finish(), 0) << reader.said();
  Program writer({"qemu-io", "-f", GetParam(), "-c", "read 0 512", file_.path()});
  EXPECT_NE(writer.finish(), 0);
  EXPECT_NE(writer.said().find("lock"), std::string::npos) << writer.said();
  close(*holder.value());
}

INSTANTIATE_TEST_SUITE_P(Formats, QemuLockTest, testing::Values("raw", "qcow2"),
                         [](const auto& format) { return std::string(format.param); });

}  // namespace
}  // namespace ringdisk::file
