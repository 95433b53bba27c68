// SPDX-License-Identifier: Apache-2.0
// What a job's progress looks like, letter for letter, as its time goes by on the simulator.
#include "control/progress.h"

#include <gtest/gtest.h>

#include <vector>

#include "async/scope.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A job of a given total that does a part of it each step.
struct Job {
  uint64_t done = 0, total = 0;
  uint64_t step = 0;
  Duration step_time = seconds(1);
  uint32_t steps = 0;
  bool succeeds = true;
};

Task<void> work(Scope& scope, ProgressReporter& reporter, Job& job) {
  Shard& shard = Shard::current();
  scope.spawn(reporter.watch(shard, scope.token()));
  for (uint32_t i = 0; i < job.steps; ++i) {
    Result<void> slept = co_await shard.sleep(job.step_time);
    EXPECT_TRUE(slept.ok());
    job.done += job.step;
  }
  scope.cancel();
  reporter.finish(job.succeeds);
}

// All that is written, each call a string.
std::vector<std::string> report(ProgressOptions options, Job job) {
  sim::SimWorld world(1, 1);
  std::vector<std::string> written;
  options.write = [&written](std::string_view text) { written.emplace_back(text); };
  ProgressReporter reporter(
      options, [&job] { return job.done; }, [&job] { return job.total; });
  auto body = [&](Scope& scope) { return work(scope, reporter, job); };
  auto root = [&](Shard&) { return with_scope(body); };
  EXPECT_TRUE(world.run(root).ok());
  return written;
}

ProgressOptions options_of(ProgressForm form) {
  ProgressOptions options;
  options.form = form;
  options.job = "convert";
  // Between the steps, so that there is no question which of two comes first.
  options.interval = milliseconds(1300);
  return options;
}

Job four_steps() {
  Job job;
  job.total = 4 << 20;
  job.step = 1 << 20;
  job.steps = 4;
  return job;
}

TEST(ProgressTest, NoneIsSilent) {
  EXPECT_TRUE(report(options_of(ProgressForm::kNone), four_steps()).empty());
}

TEST(ProgressTest, PercentagesAreQemuImgs) {
  EXPECT_EQ(
      report(options_of(ProgressForm::kPercent), four_steps()),
      (std::vector<std::string>{"    (0.00/100%)\r", "    (25.00/100%)\r", "    (50.00/100%)\r",
                                "    (75.00/100%)\r", "    (100.00/100%)\r", "\n"}));
}

TEST(ProgressTest, JsonIsOneObjectALine) {
  std::vector<std::string> lines = report(options_of(ProgressForm::kJson), four_steps());
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(
      lines[1],
      "{\"event\": \"progress\", \"job\": \"convert\", \"done\": 1048576, \"total\": 4194304, "
      "\"unit\": \"bytes\", \"seconds\": 1.300}\n");
  EXPECT_EQ(
      lines[4],
      "{\"event\": \"progress\", \"job\": \"convert\", \"done\": 4194304, \"total\": 4194304, "
      "\"unit\": \"bytes\", \"seconds\": 4.000}\n");
}

TEST(ProgressTest, ABarShowsShareSpeedAndTheTimeThatIsLeft) {
  ProgressOptions options = options_of(ProgressForm::kBar);
  options.terminal_columns = 60;
  std::vector<std::string> drawn = report(options, four_steps());
  ASSERT_EQ(drawn.size(), 6u);
  const std::string erase = "\r\x1b[K";
  EXPECT_EQ(drawn[0], erase + "convert  [" + std::string(40, ' ') + "]   0.0%");
  EXPECT_EQ(drawn[1], erase + "convert  [====               ]  25.0%  788 KiB/s  0:04 left");
  EXPECT_EQ(drawn[4], erase + "convert  [================================] 100.0%  1 MiB/s");
  EXPECT_EQ(drawn[5], "\n");
  for (const std::string& text : drawn) EXPECT_LE(text.size(), 60 + erase.size());
}

TEST(ProgressTest, ANarrowTerminalHasNoBar) {
  ProgressOptions options = options_of(ProgressForm::kBar);
  options.terminal_columns = 20;
  std::vector<std::string> drawn = report(options, four_steps());
  EXPECT_EQ(drawn[1], "\r\x1b[Kconvert  25.0%  788 KiB/s  0:04 left");
}

TEST(ProgressTest, ClustersHaveNoSpeed) {
  ProgressOptions options = options_of(ProgressForm::kJson);
  options.counts_bytes = false;
  EXPECT_NE(report(options, four_steps())[1].find("\"unit\": \"clusters\""), std::string::npos);
  options.form = ProgressForm::kBar;
  EXPECT_EQ(report(options, four_steps())[1].find("iB/s"), std::string::npos);
}

TEST(ProgressTest, HoursAreShownWhereThereAreAny) {
  Job job = four_steps();
  job.total = 10'000ull << 20;
  EXPECT_NE(report(options_of(ProgressForm::kBar), job)[1].find("3:36:39 left"), std::string::npos);
}

TEST(ProgressTest, AnUnknownTotalIsNoShare) {
  Job job = four_steps();
  job.total = 0;
  EXPECT_EQ(report(options_of(ProgressForm::kPercent), job)[1], "    (0.00/100%)\r");
}

TEST(ProgressTest, MoreDoneThanThereIsCountsAsAll) {
  Job job = four_steps();
  job.total = 1 << 20;
  std::vector<std::string> lines = report(options_of(ProgressForm::kPercent), job);
  EXPECT_EQ(lines[2], "    (100.00/100%)\r");
}

TEST(ProgressTest, WhatEndsSoonIsNotShown) {
  ProgressOptions options = options_of(ProgressForm::kBar);
  options.silent_for = seconds(10);
  EXPECT_TRUE(report(options, four_steps()).empty());
  options.silent_for = seconds(2);
  EXPECT_EQ(report(options, four_steps()).size(), 4u) << "two draws, the end, the line feed";
}

TEST(ProgressTest, AFailureIsNotShownAsDone) {
  Job job = four_steps();
  job.succeeds = false;
  std::vector<std::string> shown = report(options_of(ProgressForm::kPercent), job);
  EXPECT_EQ(shown.back(), "\n");
  EXPECT_EQ(shown[shown.size() - 2], "    (75.00/100%)\r");
}

}  // namespace
}  // namespace ringdisk
