// SPDX-License-Identifier: Apache-2.0
// LogLimiter over a log that writes into a pipe: what comes out, line by line.
#include "base/log_limiter.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "base/check.h"

namespace ringdisk {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class LogLimiterTest : public ::testing::Test {
 protected:
  LogLimiterTest() { CHECK_EQ(pipe(ends_), 0); }
  ~LogLimiterTest() override {
    close(ends_[0]);
    close(ends_[1]);
  }
  // What has been written since the last call; a pipe holds it all.
  std::string written() {
    EXPECT_EQ(::write(ends_[1], "", 1), 1);  // so that the read does not wait
    std::string text(65536, '\0');
    const ssize_t bytes = read(ends_[0], text.data(), text.size());
    CHECK(bytes > 0);
    text.resize(static_cast<size_t>(bytes) - 1);
    return text;
  }
  Log log_at(LogLevel level) { return Log(ends_[1], level, ""); }

 private:
  int ends_[2];
};

TEST_F(LogLimiterTest, AFewLinesAPeriodAreWrittenAndTheRestIsCounted) {
  Log log = log_at(LogLevel::kWarning);
  LogLimiter limiter(log, "clients", 2, seconds(1));
  EXPECT_FALSE(limiter.write(LogLevel::kWarning, seconds(5), "a"));
  EXPECT_FALSE(limiter.write(LogLevel::kWarning, seconds(5), "b"));
  EXPECT_TRUE(limiter.write(LogLevel::kWarning, milliseconds(5500), "c")) << "the first held back";
  EXPECT_FALSE(limiter.write(LogLevel::kWarning, milliseconds(5999), "d"));
  EXPECT_EQ(written(), "a\nb\n");
  EXPECT_FALSE(limiter.write(LogLevel::kWarning, seconds(6), "e"));
  EXPECT_EQ(written(), "2 more lines about clients were left out\ne\n");
}

TEST_F(LogLimiterTest, TheSumIsSaidOnceAndOnlyIfThereIsOne) {
  Log log = log_at(LogLevel::kWarning);
  LogLimiter limiter(log, "clients", 1, seconds(1));
  limiter.sum_up();
  EXPECT_EQ(written(), "");
  EXPECT_FALSE(limiter.write(LogLevel::kWarning, seconds(0), "a"));
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(limiter.write(LogLevel::kWarning, seconds(0), "b"), i == 0);
  }
  limiter.sum_up();
  limiter.sum_up();
  EXPECT_EQ(written(), "a\n1000 more lines about clients were left out\n");
  EXPECT_TRUE(limiter.write(LogLevel::kWarning, milliseconds(999), "c")) << "the period goes on";
  EXPECT_FALSE(limiter.write(LogLevel::kWarning, milliseconds(1000), "d"));
  EXPECT_EQ(written(), "1 more line about clients was left out\nd\n");
}

TEST_F(LogLimiterTest, LinesThatTheLogDoesNotShowAreNotCounted) {
  Log log = log_at(LogLevel::kWarning);
  LogLimiter limiter(log, "clients", 1, seconds(1));
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(limiter.write(LogLevel::kInfo, seconds(0), "connected"));
  }
  EXPECT_FALSE(limiter.write(LogLevel::kWarning, seconds(0), "a"));
  limiter.sum_up();
  EXPECT_EQ(written(), "a\n");
  Log verbose = log_at(LogLevel::kInfo);
  LogLimiter all(verbose, "clients", 1, seconds(1));
  EXPECT_FALSE(all.write(LogLevel::kInfo, seconds(0), "a"));
  EXPECT_TRUE(all.write(LogLevel::kInfo, seconds(0), "b"));
  EXPECT_EQ(written(), "a\n");
}

}  // namespace
}  // namespace ringdisk
