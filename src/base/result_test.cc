// SPDX-License-Identifier: Apache-2.0
// Results, errors and the line that a person reads.
#include "base/result.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/diagnostics.h"
#include "base/log.h"

namespace ringdisk {
namespace {

constexpr ErrorKind kAllKinds[] = {
    ErrorKind::kIo,       ErrorKind::kInvalid,  ErrorKind::kUnsupported, ErrorKind::kCorrupt,
    ErrorKind::kNotFound, ErrorKind::kDenied,   ErrorKind::kBusy,        ErrorKind::kNoSpace,
    ErrorKind::kLimit,    ErrorKind::kProtocol, ErrorKind::kTimeout,     ErrorKind::kCancelled};

// --- Result --------------------------------------------------------------------------------------

Result<std::unique_ptr<int>> make(int value) {
  if (value < 0) return Error::from_errno(-value, "make", 3);
  return std::make_unique<int>(value);
}

TEST(ResultTest, HoldsAValueOrAnError) {
  Result<std::unique_ptr<int>> good = make(4), bad = make(-EIO);
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(*good.value(), 4);
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().errno_value, EIO);
  EXPECT_EQ(bad.error().offset, 3u);
}

TEST(ResultTest, MovesAndIsAssignedBothWays) {
  auto shared = std::make_shared<int>(1);
  Result<std::shared_ptr<int>> result(shared);
  Result<std::shared_ptr<int>> moved(std::move(result));
  EXPECT_EQ(shared.use_count(), 2);
  moved = Error::from_errno(EPERM, "test");
  EXPECT_EQ(shared.use_count(), 1) << "the value died when the error took its place";
  moved = Result<std::shared_ptr<int>>(shared);
  EXPECT_EQ(shared.use_count(), 2);
  std::shared_ptr<int> taken = std::move(moved).value();
  EXPECT_EQ(taken, shared);
}

Result<int> through_macros(int first, int second) {
  RETURN_IF_ERROR(make(first));
  ASSIGN_OR_RETURN(std::unique_ptr<int> value, make(second));
  ASSIGN_OR_RETURN(value, make(*value + 1));
  return *value;
}

TEST(ResultTest, MacrosReturnTheFirstError) {
  EXPECT_EQ(through_macros(1, 2).value(), 3);
  EXPECT_EQ(through_macros(-EIO, -EPERM).error().errno_value, EIO);
  EXPECT_EQ(through_macros(1, -EPERM).error().errno_value, EPERM);
}

TEST(ResultDeathTest, TheWrongSideIsABug) {
  EXPECT_DEATH(static_cast<void>(make(-EIO).value()), "CHECK failed");
  EXPECT_DEATH(static_cast<void>(make(1).error()), "CHECK failed");
}

__attribute__((noinline)) Result<uint64_t> parse_length(const std::string& text) {
  if (text.empty()) return Error::of(ErrorKind::kInvalid, "parse");
  return text.size();
}

// (The address sanitizer sees it when the value is looked at after its Result has gone.)
TEST(ResultTest, AComparisonMayLookIntoATemporary) {
  const std::string text = "seven..";
  CHECK_EQ(parse_length(text).value(), uint64_t{7});
  CHECK_LT(uint64_t{6}, parse_length(text).value());
}

// --- Error ---------------------------------------------------------------------------------------

TEST(ErrorTest, EveryKindHasANameAndAnErrnoOfItsOwnKind) {
  for (ErrorKind kind : kAllKinds) {
    EXPECT_FALSE(name_of(kind).empty());
    const Error error = Error::of(kind, "test");
    EXPECT_EQ(error.kind, kind);
    EXPECT_EQ(error.errno_value, errno_of(kind));
    // The errno leads back to the kind, but for damage, which no system call reports.
    const ErrorKind back = Error::from_errno(errno_of(kind), "test").kind;
    EXPECT_EQ(back, kind == ErrorKind::kCorrupt ? ErrorKind::kIo : kind) << name_of(kind);
  }
}

TEST(ErrorTest, AnErrnoIsNeverLost) {
  for (int errno_value = 1; errno_value < 134; ++errno_value) {
    EXPECT_EQ(Error::from_errno(errno_value, "test").errno_value, errno_value);
  }
  EXPECT_EQ(Error::from_errno(EDQUOT, "write").kind, ErrorKind::kNoSpace);
  EXPECT_EQ(Error::from_errno(EROFS, "write").kind, ErrorKind::kDenied);
  EXPECT_EQ(Error::from_errno(ECONNRESET, "receive").kind, ErrorKind::kProtocol);
}

// --- Diagnostics ---------------------------------------------------------------------------------

TEST(DiagnosticsTest, NamesTheNodeTheOperationAndTheCause) {
  Diagnostics diagnostics;
  Error error = Error::from_errno(EIO, "read", 65536);
  EXPECT_EQ(diagnostics.describe(error), "read at 65536: Input/output error");
  const uint32_t node = diagnostics.add_node("disk.qcow2");
  error = at_node(error, node);
  EXPECT_EQ(diagnostics.describe(error), "disk.qcow2: read at 65536: Input/output error");
  const uint32_t other = diagnostics.add_node("other");
  EXPECT_EQ(at_node(error, other).node, node) << "the first node to see it is the cause";
  EXPECT_EQ(diagnostics.node_name(0), "");
}

TEST(DiagnosticsTest, ANoteTakesThePlaceOfTheCause) {
  Diagnostics diagnostics;
  const uint32_t node = diagnostics.add_node("disk.qcow2");
  Error error = Error::of(ErrorKind::kInvalid, "open");
  Error noted = diagnostics.explain(error, node, "name it with -o backing_fmt=raw");
  EXPECT_EQ(diagnostics.describe(noted), "disk.qcow2: name it with -o backing_fmt=raw");
  Error named = at_node(diagnostics.explain(error, "disk.qcow2: there is no secret"), node);
  EXPECT_EQ(diagnostics.describe(named), "disk.qcow2: there is no secret");
  Error nameless = diagnostics.explain(error, "say what");
  EXPECT_EQ(diagnostics.describe(nameless), "say what");
}

TEST(DiagnosticsTest, OldNotesGoAndTheirErrorsStillMakeSense) {
  Diagnostics diagnostics;
  Error first = diagnostics.explain(Error::of(ErrorKind::kBusy, "lock"), "the first");
  Error last = first;
  for (int i = 0; i < 1000; ++i) {
    last = diagnostics.explain(Error::of(ErrorKind::kIo, "read"), "note " + std::to_string(i));
  }
  EXPECT_EQ(diagnostics.describe(last), "note 999");
  EXPECT_EQ(diagnostics.describe(first), "lock: Device or resource busy");
}

TEST(DiagnosticsTest, MayBeUsedFromAnyThread) {
  Diagnostics diagnostics;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&diagnostics, thread] {
      const uint32_t node = diagnostics.add_node(std::to_string(thread));
      for (int i = 0; i < 500; ++i) {
        Error error = diagnostics.explain(Error::of(ErrorKind::kIo, "read"), node, "x");
        EXPECT_TRUE(diagnostics.describe(error).starts_with(std::to_string(thread) + ": "));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// --- Log -----------------------------------------------------------------------------------------

std::string logged_at(LogLevel level) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Log log(ends[1], level, "ringdisk: ");
  log.warning("a");
  log.info("b");
  log.debug("c");
  close(ends[1]);
  char text[100];
  ssize_t length = read(ends[0], text, sizeof text);
  close(ends[0]);
  return std::string(text, static_cast<size_t>(length));
}

TEST(LogTest, ShowsWhatItsLevelAsksFor) {
  EXPECT_EQ(logged_at(LogLevel::kWarning), "ringdisk: a\n");
  EXPECT_EQ(logged_at(LogLevel::kInfo), "ringdisk: a\nringdisk: b\n");
  EXPECT_EQ(logged_at(LogLevel::kDebug), "ringdisk: a\nringdisk: b\nringdisk: c\n");
  Log nowhere(-1, LogLevel::kDebug, "");
  EXPECT_FALSE(nowhere.shows(LogLevel::kWarning));
}

}  // namespace
}  // namespace ringdisk
