// SPDX-License-Identifier: Apache-2.0
// The datagram to the service manager, received on a real socket, and the pid file.
#include "control/service_notice.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>

#include "base/diagnostics.h"
#include "runtime/file_descriptor.h"
#include "runtime/real_loops_test.h"

namespace ringdisk {
namespace {

const Blocking kBlocking = Blocking::allowed_here();

// A service manager's socket, at a path or, with '@', at an abstract name.
class Manager {
 public:
  explicit Manager(const std::string& name)
      : socket_(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof address.sun_path);
    if (name[0] == '@') address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    // why: the socket interface takes every kind of address as a sockaddr
    const auto* bound = reinterpret_cast<const sockaddr*>(&address);
    EXPECT_EQ(bind(socket_.get(), bound, length), 0) << name;
  }
  // The next datagram; empty where there is none.
  std::string received() {
    char text[256];
    const ssize_t bytes = recv(socket_.get(), text, sizeof text, 0);
    return bytes < 0 ? "" : std::string(text, static_cast<size_t>(bytes));
  }

 private:
  FileDescriptor socket_;
};

TEST(NotifyServiceTest, TheManagerReceivesTheStateAsItIs) {
  TemporaryFolder folder;
  const std::string path = folder / "notify";
  Manager manager(path);
  ASSERT_TRUE(notify_service(kBlocking, path, "READY=1").ok());
  ASSERT_TRUE(notify_service(kBlocking, path, "STOPPING=1").ok());
  EXPECT_EQ(manager.received(), "READY=1");
  EXPECT_EQ(manager.received(), "STOPPING=1");
  EXPECT_EQ(manager.received(), "");
}

TEST(NotifyServiceTest, AnAbstractNameIsWrittenWithAnAt) {
  const std::string name = "@ringdisk-test-" + std::to_string(getpid());
  Manager manager(name);
  ASSERT_TRUE(notify_service(kBlocking, name, "READY=1").ok());
  EXPECT_EQ(manager.received(), "READY=1");
}

TEST(NotifyServiceTest, NobodyToTellIsNoError) {
  EXPECT_TRUE(notify_service(kBlocking, "", "READY=1").ok());
}

TEST(NotifyServiceTest, AManagerThatIsNotThereIsAnErrno) {
  TemporaryFolder folder;
  EXPECT_EQ(notify_service(kBlocking, folder / "absent", "READY=1").error().errno_value, ENOENT);
  const std::string name = folder / "closed";
  { Manager gone(name); }
  EXPECT_EQ(notify_service(kBlocking, name, "READY=1").error().errno_value, ECONNREFUSED);
  const std::string longer(sizeof(sockaddr_un::sun_path), 'x');
  EXPECT_EQ(notify_service(kBlocking, longer, "READY=1").error().errno_value, ENAMETOOLONG);
}

std::optional<std::string> content_of(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) return std::nullopt;
  return std::string((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
}

class PidFileTest : public ::testing::Test {
 protected:
  const std::string wanted = std::to_string(getpid()) + "\n";
  TemporaryFolder folder;
  Diagnostics diagnostics;
};

TEST_F(PidFileTest, ItHoldsTheProcessIdAndGoesWithItsOwner) {
  const std::string path = folder / "pid";
  {
    PidFile file;
    ASSERT_TRUE(file.write(kBlocking, path, diagnostics).ok());
    EXPECT_EQ(content_of(path), wanted);
    EXPECT_EQ(content_of(path + ".new"), std::nullopt) << "nothing else is left beside it";
    struct stat status {};
    ASSERT_EQ(stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0022, 0u) << "nobody else may write it";
  }
  EXPECT_EQ(content_of(path), std::nullopt);
}

TEST_F(PidFileTest, ItTakesThePlaceOfAnOldOne) {
  const std::string path = folder / "pid";
  std::ofstream(path) << "1\nand much more than a pid\n";
  std::ofstream(path + ".new") << "what somebody left in the middle of it";
  PidFile file;
  ASSERT_TRUE(file.write(kBlocking, path, diagnostics).ok());
  EXPECT_EQ(content_of(path), wanted);
}

TEST_F(PidFileTest, AFailureNamesTheFileAndRemovesNothing) {
  const std::string path = folder / "absent/pid";
  {
    PidFile file;
    Result<void> written = file.write(kBlocking, path, diagnostics);
    ASSERT_FALSE(written.ok());
    EXPECT_EQ(diagnostics.describe(written.error()),
              "cannot write pid file '" + path + "': No such file or directory");
  }
  const std::string directory = folder / "directory";
  ASSERT_TRUE(std::filesystem::create_directory(directory));
  {
    PidFile file;
    EXPECT_FALSE(file.write(kBlocking, directory, diagnostics).ok());
  }
  EXPECT_TRUE(std::filesystem::exists(directory));
  EXPECT_FALSE(std::filesystem::exists(directory + ".new")) << "what was begun is left";
}

}  // namespace
}  // namespace ringdisk
