// SPDX-License-Identifier: Apache-2.0
// main() of every test executable. A test that fails, or ends the process, names the seed of the
// newest simulated world, and how to run it again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <string_view>

#include "sim/crash_sweep.h"
#include "sim/seeds.h"

namespace {

class PointsPrinter final : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo&) override {
    before_ = ringdisk::sim::crash_points_tried();
  }
  void OnTestEnd(const ::testing::TestInfo&) override {
    const uint64_t points = ringdisk::sim::crash_points_tried() - before_;
    if (points != 0) printf("crash points: %llu\n", static_cast<unsigned long long>(points));
  }
  uint64_t before_ = 0;
};

class SeedPrinter final : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo&) override { ringdisk::sim::note_seed(0); }
  void OnTestEnd(const ::testing::TestInfo& test) override {
    if (!test.result()->Failed() || ringdisk::sim::noted_seed() == 0) return;
    printf("%s.%s: the newest simulated world had seed %llu; again: RINGDISK_SEED=%llu\n",
           test.test_suite_name(), test.name(),
           static_cast<unsigned long long>(ringdisk::sim::noted_seed()),
           static_cast<unsigned long long>(ringdisk::sim::noted_seed()));
  }
};

void write_text(std::string_view text) {
  if (write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

// Only what a signal handler may do.
void print_seed_and_die(int signal_number) {
  if (uint64_t seed = ringdisk::sim::noted_seed(); seed != 0) {
    char digits[24];
    auto [end, error] = std::to_chars(digits, digits + sizeof digits, seed);
    write_text("newest simulated world: again with RINGDISK_SEED=");
    write_text({digits, static_cast<size_t>(end - digits)});
    write_text("\n");
  }
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleMock(&argc, argv);
  // Our code is built without exceptions: one that the standard library throws would be caught
  // above frames whose destructors have not run. It is to end the process instead, with its stack.
  ::testing::GTEST_FLAG(catch_exceptions) = false;
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  ::testing::UnitTest::GetInstance()->listeners().Append(new SeedPrinter);
  ::testing::UnitTest::GetInstance()->listeners().Append(new PointsPrinter);
  signal(SIGABRT, print_seed_and_die);
  return RUN_ALL_TESTS();
}
