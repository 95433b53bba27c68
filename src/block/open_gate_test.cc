// SPDX-License-Identifier: Apache-2.0
// Which other files an image may open. The names come from images: hostile.
#include "block/open_gate.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/diagnostics.h"
#include "runtime/real_loops_test.h"

namespace ringdisk {
namespace {

namespace fs = std::filesystem;

//   images/      top.qcow2  base.img  sub/deep.img  link-in (base.img)  link-out, dir-out (secret)
//   secret/      disk.img
//   images-too/  disk.img
class OpenGateTest : public ::testing::Test {
 protected:
  OpenGateTest() {
    fs::create_directories(folder / "images/sub");
    fs::create_directories(folder / "secret");
    fs::create_directories(folder / "images-too");
    for (const char* name : {"images/top.qcow2", "images/base.img", "images/sub/deep.img",
                             "secret/disk.img", "images-too/disk.img"}) {
      std::ofstream(folder / name) << "x";
    }
    fs::create_symlink("../secret/disk.img", folder / "images/link-out");
    fs::create_symlink("base.img", folder / "images/link-in");
    fs::create_directory_symlink("../secret", folder / "images/dir-out");
  }
  Result<std::string> admit(std::string_view named, std::string_view format = "raw") {
    return gate.admit(Blocking::allowed_here(), folder / "images/top.qcow2", named, format);
  }
  void expect_in(std::string_view named) {
    Result<std::string> admitted = admit(named);
    EXPECT_TRUE(admitted.ok()) << named << ": " << diagnostics.describe(admitted.error());
  }
  void expect_refused(std::string_view named, ErrorKind kind, const std::string& words) {
    Result<std::string> admitted = admit(named);
    ASSERT_FALSE(admitted.ok()) << named;
    EXPECT_EQ(admitted.error().kind, kind) << named;
    EXPECT_NE(diagnostics.describe(admitted.error()).find(words), std::string::npos)
        << diagnostics.describe(admitted.error());
  }

  TemporaryFolder folder;
  Diagnostics diagnostics;
  OpenGate gate{diagnostics};
};

TEST_F(OpenGateTest, FilesBesideAndBelowTheImageComeIn) {
  EXPECT_EQ(admit("base.img").value(), folder / "images/base.img");
  expect_in("./base.img");
  expect_in("sub/deep.img");
  expect_in("sub/../base.img");
  expect_in("link-in");
  expect_in(folder / "images/base.img");
}

TEST_F(OpenGateTest, WhatLeadsOutOfTheDirectoryIsRefusedAndSaysHowToAllowIt) {
  const std::string allow = "--allow-path " + (folder / "secret");
  expect_refused("../secret/disk.img", ErrorKind::kDenied, allow);
  expect_refused(folder / "secret/disk.img", ErrorKind::kDenied, allow);
  expect_refused("link-out", ErrorKind::kDenied, allow);
  expect_refused("dir-out/disk.img", ErrorKind::kDenied, allow);
  expect_refused("sub/../../secret/disk.img", ErrorKind::kDenied, allow);
  // A directory whose name only begins like the image's.
  expect_refused("../images-too/disk.img", ErrorKind::kDenied, "--allow-path");
  expect_refused("/etc/passwd", ErrorKind::kDenied, "--allow-path /etc");
}

TEST_F(OpenGateTest, AnAllowedDirectoryAndWhatIsBelowComesIn) {
  gate.allow_below(folder / "secret/");
  expect_in("../secret/disk.img");
  expect_in("link-out");
  expect_refused("../images-too/disk.img", ErrorKind::kDenied, "--allow-path");
}

TEST_F(OpenGateTest, ProtocolsNeverComeIn) {
  gate.allow_any_local_path();
  for (const char* name :
       {"nbd:localhost:10809", "nbd+unix:///x?socket=y", "http://host/x",
        "json:{\"driver\":\"file\"}", "fat:rw:/tmp", "file:base.img", "ssh://host/x", ":x"}) {
    expect_refused(name, ErrorKind::kDenied, "is not a local file name");
  }
  EXPECT_FALSE(has_protocol_prefix("dir/nbd:x"));
  EXPECT_FALSE(has_protocol_prefix("./nbd:x"));
  EXPECT_FALSE(has_protocol_prefix("base.img"));
}

TEST_F(OpenGateTest, AFileByItsWholePathIsJudgedAsThatPath) {
  const std::string folder_path = folder / "";
  EXPECT_EQ(admit("file:" + folder_path + "images/base.img").value(), folder / "images/base.img");
  expect_refused("file:" + folder_path + "secret/disk.img", ErrorKind::kDenied, "--allow-path");
  expect_refused("file:" + folder_path + "images/dir-out/disk.img", ErrorKind::kDenied,
                 "--allow-path");
  expect_refused("file:/nbd:x", ErrorKind::kNotFound, "cannot be opened");
  expect_refused("file:file:/x", ErrorKind::kDenied, "is not a local file name");
}

TEST_F(OpenGateTest, AFormatMustBeRecorded) {
  Result<std::string> none = admit("base.img", "");
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().kind, ErrorKind::kDenied);
  EXPECT_NE(diagnostics.describe(none.error()).find("has no recorded format"), std::string::npos);
  gate.allow_any_local_path();
  EXPECT_TRUE(admit("base.img", "").ok());
}

TEST_F(OpenGateTest, AnyLocalPathMeansAnyLocalPath) {
  gate.allow_any_local_path();
  expect_in("../secret/disk.img");
  expect_in("link-out");
  expect_in("/etc/passwd");
}

TEST_F(OpenGateTest, WhatIsNoFileIsRefused) {
  expect_refused("absent.img", ErrorKind::kNotFound, "No such file");
  expect_refused("", ErrorKind::kDenied, "");
  expect_refused(std::string_view("base.img\0x", 10), ErrorKind::kDenied, "is no file name");
}

}  // namespace
}  // namespace ringdisk
